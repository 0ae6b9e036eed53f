"""Which ranges of a stream are planned next: newest or oldest first, and not while their rows are hot. Pure functions.

Ranges are cells of the stream's grid, without the blocks that have a task already. The cell at the tip of a followed
chain waits until it is full, unless the job's ``max_cold_lag`` cuts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from trace_dagster.blocks import MAX_BLOCK, BlockRange, cells, holes
from trace_dagster.registry.streams import StreamSpec


@dataclass(frozen=True, slots=True)
class Planned:
    """The blocks ``[start, end)``, each of which is planned; none if both are the same. A hint that saves time."""

    start: int
    end: int

    def ranges(self) -> list[BlockRange]:
        """Return the blocks as ranges: one, or none."""
        return [BlockRange(self.start, self.end)] if self.start < self.end else []


@dataclass(frozen=True, slots=True)
class HotBlocks:
    """The blocks of a stream whose rows are hot, as few ranges in block order."""

    ranges: tuple[BlockRange, ...]
    followed: bool
    """Whether the follower goes on: then the blocks above the last range become hot too."""

    def hold(self, piece: BlockRange) -> bool:
        """Return whether queries see all rows of these blocks without a commit, or will in a moment."""
        if any(hot.start <= piece.start and piece.end <= hot.end for hot in self.ranges):
            return True
        return self.followed and bool(self.ranges) and self.ranges[-1].start <= piece.start


@dataclass(frozen=True, slots=True)
class Room:
    """How many ranges may be planned now: at the tip, that is from ``tip_start`` on, and below it."""

    history: int
    tip: int
    tip_start: int = MAX_BLOCK - 1
    """Start of a cell."""

    def at(self, piece: BlockRange) -> int:
        """Return how many ranges may be planned in all if this one is among them."""
        return self.tip if piece.start >= self.tip_start else self.history


@dataclass(frozen=True, slots=True)
class Choice:
    """What the planner does next about a stream."""

    ranges: list[BlockRange]
    """Ranges to plan, the most wanted first."""
    planned: Planned
    held: list[BlockRange]
    """Ranges that are not planned because their rows are hot."""


def next_ranges(
    stream: StreamSpec,
    end: int,
    known: Planned,
    taken: Iterable[BlockRange],
    room: Room,
    *,
    newest_first: bool = False,
    is_held: Callable[[BlockRange], bool] = lambda _: False,
) -> Choice:
    """Choose ranges between the stream's first block and ``end`` that neither ``known`` nor ``taken`` touches.

    Ranges of the tip come first, then history, newest or oldest first. ``end`` is the result of :func:`open_end`.
    """
    if end <= stream.from_block:
        return Choice([], known, [])
    wanted = BlockRange(stream.from_block, end)
    chosen: list[BlockRange] = []
    held: list[BlockRange] = []
    left: BlockRange | None = None
    gaps = list(holes(wanted, [*known.ranges(), *taken]))
    for piece in _pieces(gaps, stream.chunk_size, room.tip_start, newest_first=newest_first):
        if is_held(piece):
            held.append(piece)
        elif len(chosen) < room.at(piece):
            chosen.append(piece)
        else:
            left = piece
            break
    if left and not newest_first and left.start >= room.tip_start:
        return Choice(chosen, known, held)
    return Choice(chosen, _known_after(wanted, known, held, left, newest_first=newest_first), held)


def _known_after(
    wanted: BlockRange, known: Planned, held: list[BlockRange], left: BlockRange | None, *, newest_first: bool
) -> Planned:
    """Return the blocks that are planned for sure. ``left`` is the first range for which there was no room."""
    end = known.end if known.start <= wanted.end <= known.end else wanted.end
    unplanned = [piece.start for piece in held]
    if newest_first:
        return Planned(left.end if left else wanted.start, min(unplanned, default=end))
    unplanned += [left.start] if left else []
    return Planned(wanted.start, min(unplanned, default=end))


def _pieces(gaps: Sequence[BlockRange], chunk_size: int, tip_start: int, *, newest_first: bool) -> Iterator[BlockRange]:
    """Yield the parts of cells that ``gaps`` consist of, those of the tip first. Few are made if few are taken."""
    if newest_first:
        yield from _downwards(gaps, chunk_size)
        return
    tip = BlockRange(tip_start, MAX_BLOCK)
    yield from _downwards([part for gap in gaps if (part := _common(gap, tip))], chunk_size)
    for gap in gaps:
        if gap.start < tip_start:
            yield from cells(BlockRange(gap.start, min(gap.end, tip_start)), chunk_size)


def _downwards(gaps: Sequence[BlockRange], chunk_size: int) -> Iterator[BlockRange]:
    for gap in reversed(gaps):
        end = gap.end
        while end > gap.start:
            start = max(gap.start, (end - 1) // chunk_size * chunk_size)
            yield BlockRange(start, end)
            end = start


def _common(one: BlockRange, other: BlockRange) -> BlockRange | None:
    start, end = max(one.start, other.start), min(one.end, other.end)
    return BlockRange(start, end) if start < end else None


def full_end(stream: StreamSpec, end: int) -> int:
    """Return the end of the last full cell below ``end``. A cell that the tip cuts short is planned when it is full."""
    if stream.to_block is not None and end >= stream.to_block:
        return end
    return max(stream.from_block, end // stream.chunk_size * stream.chunk_size)


def open_end(stream: StreamSpec, end: int, max_cold_lag: int | None, taken: Iterable[BlockRange]) -> int:
    """Return the end of the last range that may be planned: that of the last full cell, or of a cut one.

    The cell at the tip is cut at a multiple of ``max_cold_lag`` once so many of its blocks below ``end`` are free, if
    as many are left for its last range: so each range has as many blocks. ``taken`` are the ranges of that cell that
    have a task.
    """
    full = full_end(stream, end)
    if max_cold_lag is None or stream.to_block is not None:
        return full
    cell_start = full // stream.chunk_size * stream.chunk_size
    free = max([full, *(piece.end for piece in taken)])
    blocks = min(end - cell_start, stream.chunk_size - max_cold_lag)
    cut = cell_start + blocks // max_cold_lag * max_cold_lag
    return cut if cut - free >= max_cold_lag else full
