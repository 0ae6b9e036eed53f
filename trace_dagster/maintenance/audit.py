"""Verifies committed data on the object store again: objects, rows, coverage, and the hash chain across ranges.

Only the registry is trusted, because others may be able to write to the bucket that holds manifests and Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.datasets.levels import lowered_blocks, lowered_reasons
from trace_dagster.maintenance.file_check import (
    CheckedFiles,
    EvidenceOf,
    Finding,
    Outcome,
    check_files,
    check_index,
    finding,
)
from trace_dagster.registry.versions import FileLayout, StoredVersion
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.store.objects import ObjectStore

_THREADS = 2


@dataclass(slots=True)
class Report:
    """The result of a verification: numbers of checked ranges and rows, and the differences found."""

    ranges: int = 0
    rows: int = 0
    objects: int = 0
    """Parquet objects that were read, each once, however many ranges it holds."""
    bytes: int = 0
    """Bytes of these objects."""
    levels: dict[str, int] = field(default_factory=dict)
    """Number of ranges by the level that was proven again."""
    lowered_blocks: dict[str, int] = field(default_factory=dict)
    """Number of blocks, by level, that were committed below the level of their dataset because of the chain's forms."""
    lowered_reasons: list[str] = field(default_factory=list)
    """Why these blocks are lowered, each reason a single time. They are no findings."""
    unproven_times: int = 0
    """Blocks whose ``block_timestamp`` was compared with no committed block and no header, over all datasets."""
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

    def broken_indexes(self) -> list[UUID]:
        """Return the layouts whose hash indexes must be forgotten."""
        return sorted({UUID(found.layout_id) for found in self.findings if found.layout_id})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"passed": self.passed, **asdict(self)}


def audit(
    versions: Sequence[StoredVersion],
    wanted: dict[str, BlockRange],
    store: ObjectStore,
    evidence_of: EvidenceOf,
    endpoints: dict[str, list[Endpoint]],
    current: Callable[[], Sequence[StoredVersion]],
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Check every version, then coverage and hash chain. ``wanted`` is the range that each dataset key must cover.

    Each object is read once; the versions whose rows it holds are checked from it in block order. If ``endpoints`` has
    nodes for a dataset key, its rows are also compared with their answers: rows are correct if one node's answers prove
    them. ``current`` returns the versions as they are now: a difference counts only if the registry still has the
    version with the objects that were read. ``done`` is called after each version.
    """
    report = Report()
    check_some = partial(check_files, store=store, evidence_of=evidence_of, endpoints=endpoints)
    outcomes: dict[UUID, Outcome] = {}
    for checked in _in_threads(check_some, versions):
        _count_read(report, outcomes, checked)
        for _ in checked.outcomes:
            done()
    if any(isinstance(outcome, Finding) for outcome in outcomes.values()):
        moved = _moved(versions, outcomes, {version.dataset_version: version for version in current()})
        for checked in _in_threads(check_some, moved):
            _count_read(report, outcomes, checked)
    for version in versions:
        _count_version(report, version, outcomes[version.dataset_version])
    _check_indexes(report, versions, store, current)
    for key, span in wanted.items():
        mine = [version for version in versions if version.dataset_key == key]
        report.findings.extend(_coverage(key, span, mine))
    report.findings.extend(_chain(versions))
    return report


def _check_indexes(
    report: Report,
    versions: Sequence[StoredVersion],
    store: ObjectStore,
    current: Callable[[], Sequence[StoredVersion]],
) -> None:
    """Check the hash index of each layout. A difference counts only if the registry still has the layout's index."""
    found = [check_index(layout, some, store) for layout, some in _by_index(versions).items()]
    if any(isinstance(each, Finding) for each in found):
        now = {str(layout.layout_id) for layout in _by_index(current())}
        found = [each for each in found if not isinstance(each, Finding) or each.layout_id in now]
    report.findings.extend(each for each in found if isinstance(each, Finding))
    report.unchecked.extend(each for each in found if isinstance(each, str))


def _by_index(versions: Sequence[StoredVersion]) -> dict[FileLayout, list[StoredVersion]]:
    """Group versions in block order by the layout that holds them, of those with a hash index."""
    groups: dict[FileLayout, list[StoredVersion]] = {}
    for version in sorted(versions, key=lambda each: each.block_range):
        for layout in {file.layout for file in version.files if file.layout is not None and file.layout.index_key}:
            groups.setdefault(layout, []).append(version)
    return groups


def _in_threads(
    check_some: Callable[[Sequence[StoredVersion]], CheckedFiles], versions: Sequence[StoredVersion]
) -> Iterator[CheckedFiles]:
    """Yield what came of versions, by the files that hold them."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="audit") as threads:
        yield from threads.map(check_some, _by_files(versions))


def _moved(
    versions: Sequence[StoredVersion], outcomes: dict[UUID, Outcome], now: Mapping[UUID, StoredVersion]
) -> list[StoredVersion]:
    """Return the versions with a difference whose rows a compaction has moved since, as they are now.

    A version that was replaced since gets the outcome that it could not be checked.
    """
    moved = []
    for version in versions:
        if not isinstance(outcomes[version.dataset_version], Finding):
            continue
        found = now.get(version.dataset_version)
        if found is None:
            said = f"{version.dataset_key} {version.block_range}: it was replaced during the check: verify it again"
            outcomes[version.dataset_version] = said
        elif found.files != version.files:
            moved.append(found)
    return moved


def _by_files(versions: Sequence[StoredVersion]) -> list[list[StoredVersion]]:
    """Group versions by the files that hold their rows, each group in block order."""
    groups: dict[tuple[UUID, tuple[str, ...]], list[StoredVersion]] = {}
    for version in sorted(versions, key=lambda each: (each.dataset_key, each.block_range)):
        groups.setdefault((version.dataset_uuid, tuple(file.key for file in version.files)), []).append(version)
    return list(groups.values())


def _count_read(report: Report, outcomes: dict[UUID, Outcome], checked: CheckedFiles) -> None:
    report.objects += checked.objects
    report.bytes += checked.bytes
    outcomes.update((version.dataset_version, outcome) for version, outcome in checked.outcomes)


def _count_version(report: Report, version: StoredVersion, outcome: Outcome) -> None:
    report.ranges += 1
    if isinstance(outcome, Finding):
        report.findings.append(outcome)
    elif isinstance(outcome, str):
        report.unchecked.append(outcome)
    else:
        report.rows += version.rows
        level = outcome.proof.level
        report.levels[level] = report.levels.get(level, 0) + 1
        report.unproven_times += outcome.unproven_times
        _count_lowered(report, version.verification)


def _count_lowered(report: Report, verification: Mapping[str, Any]) -> None:
    for level, blocks in lowered_blocks(verification).items():
        report.lowered_blocks[level] = report.lowered_blocks.get(level, 0) + blocks
    for reason in lowered_reasons(verification):
        if reason not in report.lowered_reasons:
            report.lowered_reasons.append(reason)


def _coverage(key: str, span: BlockRange, mine: Sequence[StoredVersion]) -> Iterator[Finding]:
    for gap in holes(span, (version.block_range for version in mine)):
        yield Finding(key, gap.start, gap.end, "hole", "no committed range covers these blocks")
    for one, other in pairwise(mine):
        if other.block_range.start < one.block_range.end:
            yield finding(other, "overlap", f"{one.block_range} covers some of its blocks as well")


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
                yield finding(
                    version,
                    "broken_chain",
                    f"block {block} is 0x{shown.hex()} here and 0x{known.hex()} in {owner.dataset_key}"
                    f" {owner.block_range}",
                )
