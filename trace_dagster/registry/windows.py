"""What the registry knows about a stream's windows: which were compacted, wait or failed, and its number of files."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.catalog import committed_ranges
from trace_dagster.registry.connection import Database, Row


@dataclass(frozen=True, slots=True)
class WindowHistory:
    """What happened to the blocks of one dataset, as of one moment."""

    committed: tuple[BlockRange, ...]
    """Committed blocks, as few ranges as possible."""
    compacted: tuple[BlockRange, ...]
    """Windows that compactions wrote, in block order."""
    changed: frozenset[BlockRange]
    """Those of them that versions have left since, because their ranges were fetched again."""
    waiting: frozenset[BlockRange]
    """Windows that a compaction holds, or that wait before their next try."""


@dataclass(frozen=True, slots=True)
class FileTotals:
    """The files that hold the visible rows of one dataset."""

    files: int
    uncompacted_files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LastLayout:
    """What the registry knows about a layout."""

    block_range: BlockRange
    layout_id: UUID
    manifest_key: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FailedWindow:
    """A window whose last compaction failed."""

    block_range: BlockRange
    failures: int
    error: str


def window_history(database: Database, dataset_uuid: UUID) -> WindowHistory:
    """Return what happened to the blocks of a dataset. The cost grows with its windows, not with its ranges."""
    with database.snapshot() as session:
        committed = committed_ranges(session, dataset_uuid)
        compacted = session.all("compacted_windows", dataset_uuid=dataset_uuid)
        waiting = session.all("waiting_windows", dataset_uuid=dataset_uuid)
    return WindowHistory(
        tuple(committed),
        tuple(map(_range, compacted)),
        frozenset(_range(row) for row in compacted if row["changed"]),
        frozenset(map(_range, waiting)),
    )


def last_layouts(database: Database, dataset_uuid: UUID) -> list[LastLayout]:
    """Return the last layout of each window of a dataset, in block order."""
    with database.snapshot() as session:
        rows = session.all("last_layouts", dataset_uuid=dataset_uuid)
    return [
        LastLayout(_range(row), row["layout_id"], row["manifest_key"], row["row_count"], row["byte_count"])
        for row in rows
    ]


def failed_windows(database: Database, dataset_uuid: UUID) -> list[FailedWindow]:
    """Return the windows of a dataset whose last compaction failed, the latest first."""
    with database.snapshot() as session:
        rows = session.all("failed_windows", dataset_uuid=dataset_uuid)
    return [FailedWindow(_range(row), row["failures"], row["error"]) for row in rows]


def file_totals(database: Database, dataset_uuid: UUID) -> FileTotals:
    """Count the files that hold the visible rows of a dataset. The cost grows with its ranges."""
    with database.snapshot() as session:
        row = session.one("file_totals", dataset_uuid=dataset_uuid) or {}
    return FileTotals(row["files"], row["uncompacted_files"], row["bytes"])


def _range(row: Row) -> BlockRange:
    return BlockRange(row["range_start"], row["range_end"])
