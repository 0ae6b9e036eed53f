"""Compacts one window of blocks under a lease: read, write, compare the written rows, swap (ADR 0019)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.layout import LayoutFiles
from trace_dagster.compaction.lease import LeaseKeeper
from trace_dagster.compaction.plan import MOST_PER_COMMITTED_BYTE, files_of, groups
from trace_dagster.compaction.window import Window
from trace_dagster.errors import LeaseLost, OutcomeUnknown, TraceError, Unavailable
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.connection import Database
from trace_dagster.registry.layouts import Layouts, NewLayout, SourceVersion, Unleased, WindowLease
from trace_dagster.store.objects import ObjectStore

_PAUSE_SECONDS = 3600.0
"""A window that gains nothing, or is over budget, is not tried again before, unless a person tries it."""

_RESERVE = 1.25
"""Bytes that are reserved per byte that is read: the hash index comes on top, and other row groups may take more."""

_LOOK_UP_TRIES = 5
_LOOK_UP_PAUSE_SECONDS = 0.2

_log = component_log("compaction")


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
        """Compact a window if that is possible and worth it; the outcome says what was done, or why nothing was.

        ``manual`` also tries a window that waits before its next try. ``progress`` gets the number of versions that
        are written, and of all that are going to be. Raise Corrupt if the rows of a version are not those that were
        committed, Unavailable if the store or the registry does not answer, OutcomeUnknown, or LeaseLost. The reason
        is stored first, for `trace-lite status`.
        """
        started = time.monotonic()
        lease = self._layouts.claim(window.dataset_uuid, window.block_range, manual=manual)
        if isinstance(lease, Unleased):
            outcome = CompactionOutcome.HELD if lease is Unleased.HELD else CompactionOutcome.NOT_DUE
            return CompactionResult(window, outcome, lease.value)
        with LeaseKeeper(self._layouts, lease) as keeper, self._failures_recorded(lease, keeper):
            grouped = self._planned(lease, window, pause_seconds=0.0 if manual else _PAUSE_SECONDS)
            if isinstance(grouped, CompactionResult):
                return grouped
            layout = self._write(lease, keeper, window, grouped, progress)
            moved = self._swap(lease, layout)
        return _result(window, lease, grouped, layout, moved, time.monotonic() - started)

    def _planned(
        self, lease: WindowLease, window: Window, *, pause_seconds: float
    ) -> list[list[SourceVersion]] | CompactionResult:
        """Return the groups to rewrite. If there are none, end the lease, delay the next try, and return the reason."""
        versions, holes = self._layouts.contents(window.dataset_uuid, window.block_range)
        if holes:
            self._layouts.end(lease)
            return CompactionResult(window, CompactionOutcome.NOT_WHOLE, _holes_text(holes))
        grouped = groups(versions, window.target_bytes)
        if not grouped:
            self._layouts.end(lease, pause_seconds=pause_seconds)
            reason = "its rows are in few files already, or too little of them is new"
            return CompactionResult(window, CompactionOutcome.NOTHING_TO_GAIN, reason)
        planned = int(_RESERVE * sum(file.bytes for group in grouped for file in files_of(group)))
        if not self._layouts.reserve(lease, planned, MOST_PER_COMMITTED_BYTE):
            self._layouts.end(lease, pause_seconds=pause_seconds)
            reason = f"compactions of {window.dataset_key} have written as much as they may: 2 bytes per committed byte"
            return CompactionResult(window, CompactionOutcome.OVER_BUDGET, reason)
        return grouped

    def _write(
        self,
        lease: WindowLease,
        keeper: LeaseKeeper,
        window: Window,
        grouped: Sequence[Sequence[SourceVersion]],
        progress: Callable[[int, int], None],
    ) -> NewLayout:
        """Write and compare the files and their manifest. Delete them again after an error."""
        total = sum(len(group) for group in grouped)
        with LayoutFiles(self._store, window, lease.layout_id) as files:
            keeper.written_bytes = lambda: files.written_bytes
            try:
                for done in files.write(grouped):
                    keeper.check()
                    progress(done, total)
                layout = files.finish()
                keeper.check()
                files.put_manifest(layout)
            except BaseException:
                files.delete()
                raise
        return layout

    def _swap(self, lease: WindowLease, layout: NewLayout) -> int:
        """Swap; if the answer is lost, look up by the layout's id whether it took effect."""
        try:
            return self._layouts.swap(lease, layout)
        except OutcomeUnknown:
            for _ in range(_LOOK_UP_TRIES):
                try:
                    if self._layouts.took_effect(lease):
                        return sum(len(file.versions) for file in layout.files)
                    break
                except Unavailable:
                    time.sleep(_LOOK_UP_PAUSE_SECONDS)
            raise

    @contextmanager
    def _failures_recorded(self, lease: WindowLease, keeper: LeaseKeeper) -> Iterator[None]:
        """End the lease with the reason if the block fails. An interrupt ends it without one."""
        try:
            yield
        except BaseException as error:
            _log.warning("failed", **_facts(lease), reason=error if isinstance(error, TraceError) else type(error))
            if not isinstance(error, LeaseLost):
                with suppress(TraceError):  # the lease lapses then
                    self._layouts.end(lease, error=_reason(error), written_bytes=keeper.written_bytes())
            raise


def _reason(error: BaseException) -> str | None:
    if isinstance(error, TraceError):
        return str(error)
    return f"unexpected {type(error).__name__}" if isinstance(error, Exception) else None


def _facts(lease: WindowLease) -> dict[str, object]:
    return {"dataset_uuid": lease.dataset_uuid, "block_range": lease.block_range, "layout_id": lease.layout_id}


def _holes_text(holes: Sequence[BlockRange]) -> str:
    named = ", ".join(str(hole) for hole in holes[:3])
    more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
    return f"blocks {named}{more} are not committed yet"


def _result(
    window: Window,
    lease: WindowLease,
    grouped: Sequence[Sequence[SourceVersion]],
    layout: NewLayout,
    moved: int,
    seconds: float,
) -> CompactionResult:
    before = [file for group in grouped for file in files_of(group)]
    size = sum(file.bytes for file in layout.files)
    result = CompactionResult(
        window=window,
        outcome=CompactionOutcome.COMPACTED,
        reason=f"{moved} ranges of {len(before)} files are in {len(layout.files)} files now",
        layout_id=lease.layout_id,
        manifest_key=layout.manifest_key,
        versions=moved,
        rows=layout.rows,
        files_before=len(before),
        files_after=len(layout.files),
        bytes_before=sum(file.bytes for file in before),
        bytes_after=size,
        seconds=round(seconds, 3),
    )
    _log.event("compacted", **_facts(lease), versions=moved, files=len(layout.files), bytes=size, rows=layout.rows)
    return result
