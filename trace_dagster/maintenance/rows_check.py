"""Checks a version's stored rows: their digest, their structure and, with evidence, the chain's commitments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.levels import lowered_blocks
from trace_dagster.digest import ContentDigest
from trace_dagster.errors import TraceError, Unavailable, VerificationFailed
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.maintenance.old_commits import require_no_made_up_status
from trace_dagster.maintenance.stored_times import has_times, same_times
from trace_dagster.registry.versions import StoredVersion
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.store.scan import RowsInOrder
from trace_dagster.verify.check import PIECE_BLOCKS, Proof, check, checked_columns, merge


@dataclass(frozen=True, slots=True)
class VersionEvidence:
    """What a version's rows are compared with."""

    collector: EvidenceCollector | None
    """None if the chain commits to nothing in the rows."""
    blocks: Callable[[BlockRange], pa.Table | None]
    """Returns number and time of committed blocks, or None if one of them is not committed or not proven."""


@dataclass(frozen=True, slots=True)
class VerifiedRows:
    """What is proven about a version's rows."""

    proof: Proof
    unproven_times: int
    """Number of blocks whose ``block_timestamp`` was compared with nothing."""


def prove(
    version: StoredVersion, rows: RowsInOrder, evidence: VersionEvidence, endpoints: Sequence[Endpoint]
) -> VerifiedRows:
    """Check a version's rows and return what is proven.

    Raises VerificationFailed if the rows are not the committed ones, or if the chain contradicts them.
    """
    digest = ContentDigest(version.schema)
    collector, unproven_times = evidence.collector, 0
    if not {name for name, _ in version.columns}.issuperset(checked_columns(version.dataset, "full")):
        collector = None  # a column that a commitment covers is not stored
    proofs = []
    for piece in version.block_range.split(PIECE_BLOCKS):
        table = rows.take(piece)
        digest.update(table)
        require_no_made_up_status(version, table)
        compared = _piece(version, table, piece, collector, endpoints)
        proofs.append(compared or check(version.dataset, table, piece, version.chain_id, None))
        if compared is None and has_times(version.dataset.name, version.columns):
            unproven_times += 0 if same_times(table, evidence.blocks(piece), piece) else len(piece)
    if digest.hexdigest() != version.content_digest:
        raise VerificationFailed("the rows are not those that were committed", range=version.block_range)
    proof = merge(proofs)
    for name in ("first_parent_hash", "last_block_hash"):
        committed, found = getattr(version, name), getattr(proof, name)
        if committed is not None and found is not None and committed != found:
            expected, got = f"0x{committed.hex()}", f"0x{found.hex()}"
            raise VerificationFailed(f"the range's {name} is another now", expected=expected, got=got)
    return VerifiedRows(proof, unproven_times)


def _piece(
    version: StoredVersion,
    table: pa.Table,
    piece: BlockRange,
    collector: EvidenceCollector | None,
    endpoints: Sequence[Endpoint],
) -> Proof | None:
    """Check a piece against stored evidence only, or against each node: rows are correct if one node's answers
    prove them. Return None if there is no evidence.

    A form that lowered the range when it was committed is left open again, if every node shows it.
    """
    if collector is None:
        return None
    if not endpoints:
        evidence = collector.of(piece).committed()
        return check(version.dataset, table, piece, version.chain_id, evidence) if evidence is not None else None
    wrong: VerificationFailed | None = None
    silent: list[TraceError] = []
    for endpoint in endpoints:
        try:
            evidence = collector.of(piece).gather_from_node(endpoint, deep=True)
        except TraceError as error:  # an error in a node's own evidence says nothing about the stored rows
            silent.append(error)
            continue
        try:
            return check(version.dataset, table, piece, version.chain_id, evidence, deep=True)
        except VerificationFailed as error:
            wrong = error
    if wrong is not None and not silent:
        raise wrong
    if wrong is None and lowered_blocks(version.verification) and collector.learn_from(silent):
        return _piece(version, table, piece, collector, endpoints)
    raise Unavailable(f"no node could settle it: {silent[-1]}" + (f"; another says: {wrong}" if wrong else ""))
