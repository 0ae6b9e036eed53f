"""Verifies committed data on the object store again: objects, rows, coverage, and the hash chain across ranges.

Only the registry is trusted, because others may be able to write to the bucket that holds manifests and Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.datasets.levels import lowered_blocks, lowered_reasons
from trace_dagster.digest import ContentDigest
from trace_dagster.errors import Corrupt, TraceError, Unavailable, VerificationFailed
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.maintenance.old_commits import require_no_made_up_status
from trace_dagster.manifest import decode
from trace_dagster.registry.versions import StoredVersion
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.scan import READ_ERRORS, rows_of
from trace_dagster.verify.check import PIECE_BLOCKS, Proof, check, checked_columns, merge

_THREADS = 2

EvidenceOf = Callable[[StoredVersion], EvidenceCollector | None]
"""Returns the collector of the evidence for a version, or None if the chain commits to nothing in its rows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between the stored data and the commit in the registry."""

    dataset_key: str
    range_start: int
    range_end: int
    kind: str
    """One of hole, overlap, missing_object, altered_object, bad_manifest, bad_rows, broken_chain."""
    reason: str
    dataset_version: str | None = None
    """The version that must be fetched again; None for a hole."""

    def __str__(self) -> str:
        return f"{self.dataset_key} [{self.range_start}, {self.range_end}): {self.kind}: {self.reason}"


@dataclass(slots=True)
class Report:
    """The result of a verification: numbers of checked ranges and rows, and the differences found."""

    ranges: int = 0
    rows: int = 0
    bytes: int = 0
    levels: dict[str, int] = field(default_factory=dict)
    """Number of ranges by the level that was proven again."""
    lowered_blocks: dict[str, int] = field(default_factory=dict)
    """Number of blocks, by level, that were committed below the level of their dataset because of the chain's forms."""
    lowered_reasons: list[str] = field(default_factory=list)
    """Why these blocks are lowered, each reason a single time. They are no findings."""
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """Ranges that could not be checked this time, each with the reason."""

    @property
    def passed(self) -> bool:
        """True if every range was checked and no difference was found."""
        return not self.findings and not self.unchecked

    def broken(self) -> list[UUID]:
        """Return the versions that must be fetched again."""
        return sorted({UUID(found.dataset_version) for found in self.findings if found.dataset_version})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"passed": self.passed, **asdict(self)}


def audit(
    versions: Sequence[StoredVersion],
    wanted: dict[str, BlockRange],
    store: ObjectStore,
    evidence_of: EvidenceOf,
    endpoints: dict[str, list[Endpoint]],
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Check every version, then coverage and hash chain. ``wanted`` is the range that each dataset key must cover.

    If ``endpoints`` has nodes for a dataset key, its rows are also compared with their answers: rows are correct if one
    node's answers prove them. ``done`` is called after each version.
    """
    report = Report()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="audit") as threads:
        check_one = partial(_check_version, store=store, evidence_of=evidence_of, endpoints=endpoints)
        for version, outcome in zip(versions, threads.map(check_one, versions), strict=True):
            _count(report, version, outcome)
            done()
    for key, span in wanted.items():
        mine = [version for version in versions if version.dataset_key == key]
        report.findings.extend(_coverage(key, span, mine))
    report.findings.extend(_chain(versions))
    return report


def _count(report: Report, version: StoredVersion, outcome: Proof | Finding | str) -> None:
    report.ranges += 1
    if isinstance(outcome, Finding):
        report.findings.append(outcome)
    elif isinstance(outcome, str):
        report.unchecked.append(outcome)
    else:
        report.rows += version.rows
        report.bytes += sum(file.bytes for file in version.files)
        report.levels[outcome.level] = report.levels.get(outcome.level, 0) + 1
        _count_lowered(report, version.verification)


def _count_lowered(report: Report, verification: Mapping[str, Any]) -> None:
    for level, blocks in lowered_blocks(verification).items():
        report.lowered_blocks[level] = report.lowered_blocks.get(level, 0) + blocks
    for reason in lowered_reasons(verification):
        if reason not in report.lowered_reasons:
            report.lowered_reasons.append(reason)


def _check_version(
    version: StoredVersion, store: ObjectStore, evidence_of: EvidenceOf, endpoints: dict[str, list[Endpoint]]
) -> Proof | Finding | str:
    """Check one version. Return its proof, the difference found, or the reason why it could not be checked."""
    try:
        if (found := _manifest_finding(version, store)) is not None:
            return found
        with TemporaryDirectory(prefix="trace-verify-") as folder:
            paths = []
            for number, file in enumerate(version.files):
                path = Path(folder) / f"{number}.parquet"
                digest = store.download(file.key, path)
                if digest != file.sha256:
                    kind = "missing_object" if digest is None else "altered_object"
                    return _finding(
                        version, kind, f"{file.key} is {'missing' if digest is None else 'not what was committed'}"
                    )
                paths.append(path)
            return _prove(version, paths, evidence_of(version), endpoints.get(version.dataset_key, ()))
    except (VerificationFailed, Corrupt) as error:
        return _finding(version, "bad_rows", str(error))
    except TraceError as error:
        return f"{version.dataset_key} {version.block_range}: {error}"


def _manifest_finding(version: StoredVersion, store: ObjectStore) -> Finding | None:
    data = store.read(version.manifest_key)
    if data is None:
        return _finding(version, "missing_object", f"{version.manifest_key} is missing")
    try:
        manifest = decode(data, sha256=version.manifest_sha256)
    except Corrupt as error:
        return _finding(version, "bad_manifest", str(error))
    if manifest.content_digest != version.content_digest or manifest.rows != version.rows:
        return _finding(version, "bad_manifest", "the manifest and the registry name other rows")
    return None


def _prove(
    version: StoredVersion, paths: Sequence[Path], collector: EvidenceCollector | None, endpoints: Sequence[Endpoint]
) -> Proof:
    """Check rows against their digest and structure and, if there is evidence, the chain's commitments."""
    rows = _open(paths, version.schema)
    digest = ContentDigest(version.schema)
    if not {name for name, _ in version.columns}.issuperset(checked_columns(version.dataset, "full")):
        collector = None  # a column that a commitment covers is not stored
    proofs = []
    for piece in version.block_range.split(PIECE_BLOCKS):
        table = rows_of(rows, piece)
        digest.update(table)
        require_no_made_up_status(version, table)
        proofs.append(_piece(version, table, piece, collector, endpoints))
    if digest.hexdigest() != version.content_digest:
        raise VerificationFailed("the rows are not those that were committed", range=version.block_range)
    proof = merge(proofs)
    for name in ("first_parent_hash", "last_block_hash"):
        committed, found = getattr(version, name), getattr(proof, name)
        if committed is not None and found is not None and committed != found:
            expected, got = f"0x{committed.hex()}", f"0x{found.hex()}"
            raise VerificationFailed(f"the range's {name} is another now", expected=expected, got=got)
    return proof


def _piece(
    version: StoredVersion,
    table: pa.Table,
    piece: BlockRange,
    collector: EvidenceCollector | None,
    endpoints: Sequence[Endpoint],
) -> Proof:
    """Check a piece against stored evidence only, or against each node: rows are correct if one node's answers
    prove them.

    A form that lowered the range when it was committed is left open again, if every node shows it.
    """
    if not endpoints or collector is None:
        evidence = collector.of(piece).committed() if collector is not None else None
        return check(version.dataset, table, piece, version.chain_id, evidence)
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


def _open(paths: Sequence[Path], schema: pa.Schema) -> ds.Dataset:
    try:
        for path in paths:
            found = pq.read_schema(path).remove_metadata()
            if not found.equals(schema):
                raise VerificationFailed("the columns are not those that were committed")
        return ds.dataset([str(path) for path in paths], format="parquet", schema=schema)
    except READ_ERRORS as error:
        raise VerificationFailed("a Parquet object cannot be read", reason=type(error).__name__) from None


def _coverage(key: str, span: BlockRange, mine: Sequence[StoredVersion]) -> Iterator[Finding]:
    for gap in holes(span, (version.block_range for version in mine)):
        yield Finding(key, gap.start, gap.end, "hole", "no committed range covers these blocks")
    for one, other in pairwise(mine):
        if other.block_range.start < one.block_range.end:
            yield _finding(other, "overlap", f"{one.block_range} covers some of its blocks as well")


def _chain(versions: Iterable[StoredVersion]) -> Iterator[Finding]:
    """Yield a finding for each block boundary for which two versions store different hashes."""
    seen: dict[int, tuple[bytes, StoredVersion]] = {}
    ordered = sorted(
        versions, key=lambda version: (version.dataset.name != "blocks", version.dataset_key, version.block_range)
    )
    for version in ordered:
        for block, shown in (
            (version.block_range.start - 1, version.first_parent_hash),
            (version.block_range.end - 1, version.last_block_hash),
        ):
            if shown is None:
                continue
            known, owner = seen.setdefault(block, (shown, version))
            if known != shown:
                yield _finding(
                    version,
                    "broken_chain",
                    f"block {block} is 0x{shown.hex()} here and 0x{known.hex()} in {owner.dataset_key}"
                    f" {owner.block_range}",
                )


def _finding(version: StoredVersion, kind: str, reason: str) -> Finding:
    span = version.block_range
    return Finding(version.dataset_key, span.start, span.end, kind, reason, str(version.dataset_version))
