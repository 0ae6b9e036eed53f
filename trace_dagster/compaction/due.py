"""Finds the windows of a stream, and those that are due. Sensor, schedules and command line all use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.plan import is_due
from trace_dagster.compaction.windows import new_windows, windows_of
from trace_dagster.registry.connection import Database
from trace_dagster.registry.layouts import Layouts, WindowState
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.windows import WindowHistory, window_history

SHOWN_WINDOWS = 10_000
"""Most windows of a stream that are shown before they are compacted."""

_AT_ONCE = 32
"""Windows whose state one query reads."""


class DueWindows:
    """Reads the windows of streams. Every call reads what is committed at that moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._layouts = Layouts(database)

    def windows(self, stream: StreamRow) -> list[BlockRange]:
        """Return the windows of a stream, also those that are not committed yet, in block order."""
        history = window_history(self._database, stream.dataset_uuid)
        known_end = max(stream.next_block, stream.eligible_end or 0)
        return windows_of(stream, history.compacted, known_end, limit=SHOWN_WINDOWS)

    def due(self, stream: StreamRow, *, limit: int, manual: bool = False) -> list[WindowState]:
        """Return at most ``limit`` windows that are due, in block order: wholly committed, free, and worth it.

        With ``manual``, windows that wait before their next try are due too.
        """
        return sorted(islice(self._due(stream, manual), limit), key=lambda state: state.block_range)

    def state(self, stream: StreamRow, block_range: BlockRange) -> WindowState:
        """Return the state of one window."""
        (found,) = self._layouts.states(stream.dataset_uuid, [block_range])
        return found

    def written_bytes(self, dataset_uuid: UUID) -> tuple[int, int]:
        """Return the bytes that commits and compactions of a dataset have written."""
        return self._layouts.written_bytes(dataset_uuid)

    def _due(self, stream: StreamRow, manual: bool) -> Iterator[WindowState]:
        compact = stream.compact
        if compact is None:
            return
        history = window_history(self._database, stream.dataset_uuid)
        candidates = _candidates(stream, history, frozenset() if manual else history.waiting)
        while some := list(islice(candidates, _AT_ONCE)):
            for state in self._layouts.states(stream.dataset_uuid, some):
                if is_due(replace(state, due=True) if manual else state, compact.target_bytes):
                    yield state


def _candidates(stream: StreamRow, history: WindowHistory, waiting: frozenset[BlockRange]) -> Iterator[BlockRange]:
    """Yield the windows that may be due: wholly committed, not compacted or changed since, and not waiting."""
    for window in sorted(history.changed):
        if window not in waiting:
            yield window
    for window in new_windows(stream, history.committed, history.compacted):
        if window not in waiting:
            yield window
