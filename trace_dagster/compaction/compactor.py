"""Compacts one window of blocks under a lease: read, write, compare the written rows, swap (ADR 0017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Database
from trace_dagster.registry.layouts import Layouts
from trace_dagster.store.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Window:
    """Blocks of one stream that are compacted together, and the size that files should have."""

    dataset_uuid: UUID
    chain_id: int
    dataset_key: str
    dataset_name: str
    """Name of Cryo's dataset."""
    block_range: BlockRange
    target_bytes: int


class CompactionOutcome(Enum):
    """What became of a window."""

    COMPACTED = "compacted"
    NOTHING_TO_GAIN = "nothing_to_gain"
    """Its rows are in few files already, or too little of them has changed."""
    NOT_WHOLE = "not_whole"
    """Some of its blocks are not committed."""
    OVER_BUDGET = "over_budget"
    """Compactions of the stream have written as many bytes as they may."""
    HELD = "held"
    """Another compaction of these blocks is under way."""
    NOT_DUE = "not_due"
    """It failed a short time ago, and waits before its next try."""


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """What a compaction did. Numbers of files and bytes concern the versions that moved."""

    window: Window
    outcome: CompactionOutcome
    reason: str
    """One sentence for people."""
    layout_id: UUID | None = None
    manifest_key: str | None = None
    versions: int = 0
    rows: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0


class Compactor:
    """Compacts windows. Several may work at once, in any process: the lease of a window lets one of them swap."""

    def __init__(self, database: Database, store: ObjectStore, *, lease_ttl_seconds: float = 60.0) -> None:
        self._layouts = Layouts(database, lease_ttl_seconds=lease_ttl_seconds)
        self._store = store

    def compact(
        self,
        window: Window,
        *,
        manual: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> CompactionResult:
        """Compact a window if that is possible and worth it; the outcome says what was done, or why nothing.

        ``manual`` also tries a window that waits before its next try. ``progress`` gets the numbers of versions that
        are written and compared, and that there are. Raise Corrupt if the rows of a version are not those that were
        committed, Unavailable if the store or the registry does not answer, OutcomeUnknown, or LeaseLost. The reason
        is stored first, and shown by `trace-lite status`.
        """
        raise NotImplementedError
