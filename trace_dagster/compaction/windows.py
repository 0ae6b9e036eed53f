"""Windows: the blocks of a stream whose committed ranges a compaction writes into few large files.

Windows are the cells of an absolute grid of ``after_files * chunk_size`` blocks, cut at the stream's bounds. What a
compaction wrote keeps its window: another ``chunk_size``, ``after_files`` or bound cuts only the other blocks anew, so
that no such change compacts anything twice. Pure functions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from trace_dagster.blocks import BlockRange, cells, holes, merged
from trace_dagster.config.compact import Compact
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.streams import StreamSpec

_SHOWN_WINDOWS = 5


def require_compaction(stream: StreamSpec) -> Compact:
    """Return the settings of a stream's compaction. Raises InvalidInput if it is off."""
    if stream.compact is None:
        raise InvalidInput(f"compaction of stream {stream.dataset_key} of job {stream.job_name} is off in its YAML")
    return stream.compact


def window_span(stream: StreamSpec, known_end: int) -> BlockRange | None:
    """Return the blocks that are cut into windows: up to ``to_block``, or to the last full window below ``known_end``.

    A window that the chain's tip cuts short is left out until it is whole. Returns None if there is no window.
    """
    compact = stream.compact
    if compact is None:
        return None
    blocks = compact.window_blocks(stream.chunk_size)
    end = stream.to_block if stream.to_block is not None else known_end // blocks * blocks
    return BlockRange(stream.from_block, end) if end > stream.from_block else None


def new_windows(
    stream: StreamSpec, blocks: Iterable[BlockRange], compacted: Iterable[BlockRange]
) -> Iterator[BlockRange]:
    """Yield, in order, the windows of which no block was compacted and whose every block is one of ``blocks``."""
    found = merged(blocks)
    span = window_span(stream, found[-1].end) if found else None
    if span is None or stream.compact is None:
        return
    size = stream.compact.window_blocks(stream.chunk_size)
    for gap in holes(span, merged(compacted)):
        yield from _cells_within(gap, found, size)


def _cells_within(gap: BlockRange, blocks: Iterable[BlockRange], size: int) -> Iterator[BlockRange]:
    """Yield the cells of ``gap`` that lie in one of ``blocks``, without making those that lie elsewhere."""
    for part in blocks:
        start, end = max(gap.start, part.start), min(gap.end, part.end)
        if start > gap.start:  # the cell that the part begins inside of is not whole
            start = -(-start // size) * size
        for cell in cells(BlockRange(start, end), size) if start < end else ():
            if cell.end % size == 0 or cell.end == gap.end:
                yield cell


def windows_of(stream: StreamSpec, compacted: Iterable[BlockRange], known_end: int, *, limit: int) -> list[BlockRange]:
    """Return the windows of a stream, in order: those that were compacted, and at most ``limit`` others."""
    span = window_span(stream, known_end)
    rest = islice(new_windows(stream, [span] if span else [], compacted), limit)
    return sorted({*compacted, *rest})


def named_window(windows: Iterable[BlockRange], wanted: BlockRange, dataset_key: str) -> BlockRange:
    """Return the window with exactly these blocks. Raises InvalidInput with the stream's windows that touch them."""
    near = [each for each in windows if each.start < wanted.end and wanted.start < each.end]
    if wanted in near:
        return wanted
    shown = ", ".join(f"{each.start}-{each.end}" for each in near[:_SHOWN_WINDOWS]) or "none"
    raise InvalidInput(
        f"blocks {wanted.start}-{wanted.end} are no window of {dataset_key}; its windows with such blocks: {shown}"
    )
