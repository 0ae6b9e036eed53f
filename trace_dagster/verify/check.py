"""Check one piece of a dataset: which evidence and columns it needs, and what the comparison proves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.datasets.catalogue import dataset as lookup
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.commitments.prove import link
from trace_dagster.verify.mismatch import disagrees
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows import columnwise, rowwise
from trace_dagster.verify.rows.arrow import required
from trace_dagster.verify.rows.comparison import Compared
from trace_dagster.verify.rows.structure import check_structure

Level = Literal["structural", "crosschecked", "full"]
LEVELS = ("off", "structural", "crosschecked", "full")
"""Levels of proof, from none to everything that the chain commits to."""

PIECE_BLOCKS = 500
"""Most blocks of a piece. A table costs half a millisecond to check whatever it holds, and must fit into memory."""

_PROVABLE = frozenset({"blocks", "transactions", "logs", "erc20_transfers", "erc721_transfers"})

_ALL_COLUMNS: dict[str, tuple[str, ...]] = {
    "transactions": ("transaction_hash", "transaction_type", "success", "gas_used"),
    "logs": ("transaction_hash", "address", "topic0", "topic1", "topic2", "topic3", "data"),
    "erc20_transfers": ("transaction_hash", "erc20", "from_address", "to_address", "value_binary"),
    "erc721_transfers": ("transaction_hash", "erc20", "from_address", "to_address", "token_id_binary"),
    "geth_calls": ("transaction_hash", "typ", "from_address", "to_address", "value_binary", "input", "error"),
    "traces": ("transaction_hash", "action_type", "action_from", "action_to", "action_value", "error"),
    "geth_balance_diffs": ("transaction_hash", "address", "from_value_binary", "to_value_binary"),
}
"""Columns that a comparison with evidence reads in addition to the structural columns."""

_SHAPE_COLUMNS = {"traces": ("trace_address", "action_type"), "transactions": ("transaction_hash",)}


@dataclass(frozen=True, slots=True)
class Needs:
    """The evidence that level ``full`` needs."""

    headers: bool
    transactions: bool
    receipts: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a piece.

    ``full``: the chain's commitments cover the rows, except for what ``unproven`` lists. ``crosschecked``: no
    commitment covers the dataset, but its rows were compared with proven headers, transactions or receipts.
    ``structural``: the rows have the form of a right answer.
    """

    level: Level
    checks: tuple[str, ...]
    unproven: tuple[str, ...]
    first_block: int
    blocks: int
    first_parent_hash: bytes | None
    last_block_hash: bytes | None


def needs(dataset_name: str) -> Needs:
    """Return the evidence that level ``full`` needs for a dataset."""
    if dataset_name == "blocks":
        return Needs(True, False, False)
    if dataset_name in {"logs", "erc20_transfers", "erc721_transfers"}:
        return Needs(True, False, True)
    if dataset_name in _ALL_COLUMNS:
        return Needs(True, True, True)
    return Needs("block_hash" in lookup(dataset_name).all_columns, False, False)


def columns(dataset: Dataset, level: str) -> tuple[str, ...]:
    """Return the columns that a check at ``level`` (structural or full) reads, in schema order."""
    wanted = {*dataset.checked_columns, *_SHAPE_COLUMNS.get(dataset.name, ())}
    if level == "full":
        wanted |= {*_ALL_COLUMNS.get(dataset.name, ()), "block_hash"}
    return tuple(name for name in dataset.all_columns if name in wanted)


def extracted(dataset: Dataset, stored: Sequence[str], level: str) -> tuple[str, ...]:
    """Return every column that is needed to check rows at a level and to store them, in schema order."""
    return dataset.stored_columns([*stored, *columns(dataset, level)])


def check(
    dataset: Dataset,
    table: pa.Table,
    piece: BlockRange,
    chain_id: int,
    evidence: Evidence | None,
    *,
    deep: bool = False,
) -> Proof:
    """Check all rows of a piece: their structure, and their agreement with the evidence if there is some.

    ``deep`` means that the evidence's senders were recovered from signatures. Raise VerificationFailed with the first
    difference, UnknownFormat for an unknown transaction type.
    """
    done = check_structure(dataset, table, piece, chain_id)
    if evidence is None:
        return _proof("structural", done, [], piece, _row_boundary(dataset, table))
    check_evidence(evidence, piece)
    compared = _compared(dataset, table, evidence, deep)
    level: Level = "structural"
    if compared.checks:
        level = "full" if dataset.name in _PROVABLE and _enough(dataset, evidence) else "crosschecked"
    left = set(table.column_names) - compared.covered - {"chain_id"} if compared.checks else set()
    boundary = (evidence.headers[0].parent_hash, evidence.headers[-1].hash)
    return _proof(level, [*done, *compared.checks], compared.open or sorted(left), piece, boundary)


def check_evidence(evidence: Evidence, piece: BlockRange) -> None:
    """Raise VerificationFailed unless the evidence is of this piece and consistent."""
    if [header.number for header in evidence.headers] != list(range(piece.start, piece.end)):
        raise VerificationFailed("the evidence is not of these blocks", block=piece.start, range=piece)
    link(evidence.headers, None)
    for what, given in (("transactions", evidence.transactions), ("receipts", evidence.receipts)):
        if given is not None and len(given) != len(piece):
            raise disagrees(f"the evidence lacks {what}", piece.start, len(piece), len(given))
    if evidence.transactions is None or evidence.receipts is None or evidence.rows is not None:
        return
    for header, inside, outcomes in zip(evidence.headers, evidence.transactions, evidence.receipts, strict=True):
        if len(inside) != len(outcomes):
            raise disagrees("a block has not one receipt per transaction", header.number, len(inside), len(outcomes))
        for each, receipt in zip(inside, outcomes, strict=True):
            if (receipt.transaction_hash or each.hash, receipt.kind) != (each.hash, each.kind):
                raise disagrees(
                    "a receipt is of another transaction", header.number, each.hash, receipt.transaction_hash
                )


def merge(proofs: Sequence[Proof]) -> Proof:
    """Return the proof of consecutive pieces as one: what holds for all of them.

    Raise VerificationFailed with the block if the first parent of a piece is not the last block of the piece before.
    """
    for before, after in pairwise(proofs):
        block = before.first_block + before.blocks
        if after.first_block != block:
            raise disagrees("a piece does not follow on the one before", block, block, after.first_block)
        known = before.last_block_hash is not None and after.first_parent_hash is not None
        if known and before.last_block_hash != after.first_parent_hash:
            raise disagrees(
                "parent_hash is not the hash of the block before",
                block,
                before.last_block_hash,
                after.first_parent_hash,
            )
    return Proof(
        level=min((proof.level for proof in proofs), key=LEVELS.index),
        checks=tuple(sorted(set.intersection(*[set(proof.checks) for proof in proofs]))),
        unproven=tuple(sorted(set().union(*[proof.unproven for proof in proofs]))),
        first_block=proofs[0].first_block,
        blocks=sum(proof.blocks for proof in proofs),
        first_parent_hash=proofs[0].first_parent_hash,
        last_block_hash=proofs[-1].last_block_hash,
    )


def _compared(dataset: Dataset, table: pa.Table, evidence: Evidence, deep: bool) -> Compared:
    headers, transactions, receipts = evidence.headers, evidence.transactions, evidence.receipts
    if not _enough(dataset, evidence):
        return _pairs(table, evidence)
    plainly = columnwise.compared(dataset.name, table, evidence, deep=deep)
    if plainly is not None:
        return plainly
    specific: dict[str, Callable[[], Compared]] = {
        "blocks": lambda: rowwise.check_blocks(table, headers),
        "transactions": lambda: rowwise.check_transactions(
            table, headers, transactions or (), receipts, proven=evidence.proven, deep=deep
        ),
        "logs": lambda: rowwise.check_logs(table, headers, receipts or (), transactions, proven=evidence.proven),
        "erc20_transfers": lambda: _transfers(dataset, table, evidence),
        "erc721_transfers": lambda: _transfers(dataset, table, evidence),
        "geth_calls": lambda: rowwise.check_calls(
            table, headers, transactions or (), receipts or (), name=dataset.name
        ),
        "traces": lambda: rowwise.check_calls(table, headers, transactions or (), receipts or (), name=dataset.name),
        "geth_balance_diffs": lambda: rowwise.check_balance_diffs(table, headers, transactions or (), receipts or ()),
    }
    return specific.get(dataset.name, lambda: _pairs(table, evidence))()


def _transfers(dataset: Dataset, table: pa.Table, evidence: Evidence) -> Compared:
    return rowwise.check_token_transfers(
        table, dataset.name, evidence.headers, evidence.receipts or (), evidence.transactions
    )


def _pairs(table: pa.Table, evidence: Evidence) -> Compared:
    """Compare the columns that any dataset shares with the chain."""
    blocks = rowwise.check_block_hashes(table, evidence.headers)
    hashes = rowwise.check_transaction_hashes(
        table, evidence.headers, evidence.transactions, evidence.receipts, nulls=True
    )
    return Compared([*blocks.checks, *hashes.checks], blocks.covered | hashes.covered)


def _enough(dataset: Dataset, evidence: Evidence) -> bool:
    wanted = needs(dataset.name)
    return not (wanted.transactions and evidence.transactions is None) and not (
        wanted.receipts and evidence.receipts is None
    )


def _row_boundary(dataset: Dataset, table: pa.Table) -> tuple[bytes | None, bytes | None]:
    if dataset.name != "blocks" or not {"parent_hash", "block_hash"} <= set(table.column_names):
        return None, None
    return required(table, "parent_hash")[0], required(table, "block_hash")[-1]


def _proof(
    level: Level,
    checks: Sequence[str],
    unproven: Sequence[str],
    piece: BlockRange,
    boundary: tuple[bytes | None, bytes | None],
) -> Proof:
    return Proof(level, tuple(sorted(set(checks))), tuple(sorted(set(unproven))), piece.start, len(piece), *boundary)
