"""Compacts a window of a stream, for the asset that Dagster runs and for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import CompactionOutcome, CompactionResult, Compactor
from trace_dagster.compaction.due import DueWindows
from trace_dagster.compaction.window import Window
from trace_dagster.compaction.windows import named_window, require_compaction
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.streams import StreamRow

Progress = Callable[[int, int], None]
"""Takes the number of versions that are written, and that there are."""


@dataclass(frozen=True, slots=True)
class CompactionRunner:
    """Compacts windows that a stream has now."""

    compactor: Compactor
    due: DueWindows

    def compact(
        self,
        stream: StreamRow,
        block_range: BlockRange,
        *,
        manual: bool,
        progress: Progress = lambda done, total: None,
    ) -> CompactionResult:
        """Compact one window. ``manual`` also tries a window that waits before its next try.

        Raises InvalidInput if the blocks are no window of the stream, if its compaction is off, or if blocks of the
        window are not committed; and what :meth:`Compactor.compact` raises.
        """
        window = _window(stream, named_window(self.due.windows(stream), block_range, stream.dataset_key))
        result = self.compactor.compact(window, manual=manual, progress=progress)
        if result.outcome is CompactionOutcome.NOT_WHOLE:
            raise InvalidInput(f"window {block_range} of {stream.dataset_key} cannot be compacted yet: {result.reason}")
        return result


def _window(stream: StreamRow, block_range: BlockRange) -> Window:
    return Window(
        dataset_uuid=stream.dataset_uuid,
        chain_id=stream.chain_id,
        dataset_key=stream.dataset_key,
        dataset_name=stream.dataset.name,
        block_range=block_range,
        target_bytes=require_compaction(stream).target_bytes,
    )
