"""What the follower knows of its stored blocks, so that it need not read them before each block."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from trace_dagster.blocks import BlockRange, holes, merged
from trace_dagster.follow.fill import Wanted
from trace_dagster.registry.hot import ChainBlock, HotBlock, HotSegment, HotState

RECENT_BLOCKS = 32
"""Stored blocks over which the block time is measured."""

PUT_OFF_SECONDS = 30.0
"""How long a block is not asked for after no endpoint had it."""


@dataclass(slots=True)
class ChainMemory:
    """The stored chain and the blocks whose rows are hot or committed, as of the last read and all stores since."""

    segments: list[HotSegment] = field(default_factory=list)
    """Consecutive linked blocks, ascending."""
    hot: dict[UUID, list[BlockRange]] = field(default_factory=dict)
    committed: dict[UUID, tuple[BlockRange, ...]] = field(default_factory=dict)
    left_out: dict[UUID, list[BlockRange]] = field(default_factory=dict)
    """Blocks whose rows could not be built: they are not fetched again. Not stored, so a new process tries again."""
    _recent: list[ChainBlock] = field(default_factory=list)
    _put_off: list[tuple[float, BlockRange, frozenset[UUID]]] = field(default_factory=list)
    """Blocks that no endpoint had, the datasets that lack them, and until when they are not asked for."""

    @property
    def head(self) -> ChainBlock | None:
        """The newest stored block."""
        return self.segments[-1].last if self.segments else None

    def read(self, state: HotState) -> None:
        """Replace what was known by what is stored."""
        self.segments = list(state.segments)
        self.hot = {dataset: list(blocks) for dataset, blocks in state.blocks.items()}
        self.committed = {dataset: tuple(blocks) for dataset, blocks in state.committed.items()}
        for dataset, blocks in self.left_out.items():  # what is committed is not missing, and may be so again later
            committed = self.committed.get(dataset, ())
            self.left_out[dataset] = [hole for each in blocks for hole in holes(each, committed)]

    def add(self, blocks: Sequence[HotBlock], datasets: Collection[UUID]) -> None:
        """Note linked blocks that were stored with the rows of ``datasets``."""
        self.segments = joined(self.segments, HotSegment(blocks[0], blocks[-1]))
        self._recent = [*self._recent, *blocks][-RECENT_BLOCKS:]
        for dataset in datasets:
            there = [BlockRange(each.number, each.number + 1) for each in blocks if dataset in each.rows]
            missing = [BlockRange(each.number, each.number + 1) for each in blocks if dataset not in each.rows]
            self.hot[dataset] = merged([*self.hot.get(dataset, ()), *there])
            if missing:
                self.left_out[dataset] = merged([*self.left_out.get(dataset, ()), *missing])

    def put_off(self, blocks: BlockRange, datasets: frozenset[UUID]) -> None:
        """Do not want blocks of some datasets for a while, because no endpoint has them."""
        self._put_off.append((time.monotonic() + PUT_OFF_SECONDS, blocks, datasets))

    @property
    def has_put_off(self) -> bool:
        """True if blocks are not wanted now that no endpoint had."""
        now = time.monotonic()
        self._put_off = [each for each in self._put_off if each[0] > now]
        return bool(self._put_off)

    def hot_blocks(self, dataset: UUID) -> int:
        """Return how many blocks of a dataset are hot."""
        return sum(map(len, self.hot.get(dataset, ())))

    def is_committed(self, dataset: UUID, block: int) -> bool:
        """Return whether a block of a dataset is committed."""
        return any(block in each for each in self.committed.get(dataset, ()))

    def wanted(self, starts: Mapping[UUID, int]) -> list[Wanted]:
        """Return what each dataset should have from its start on, and what it has or cannot get now."""
        return [Wanted(dataset, start, self._covered(dataset, start)) for dataset, start in starts.items()]

    def block_seconds(self) -> float | None:
        """Return the usual time between the last blocks, None if it is not known.

        It is the mean of the shorter three quarters: headers have whole seconds, and a chain may have stood still.
        """
        known = {each.number: each.timestamp for each in self._recent}
        steps = sorted((known[n + 1] - known[n]).total_seconds() for n in known if n + 1 in known)
        usual = steps[: -(-len(steps) * 3 // 4)]
        return max(0.0, sum(usual) / len(usual)) if usual else None

    def _covered(self, dataset: UUID, start: int) -> tuple[BlockRange, ...]:
        later = [blocks for _, blocks, datasets in self._put_off if dataset in datasets] if self.has_put_off else []
        known = (*self.hot.get(dataset, ()), *self.committed.get(dataset, ()), *self.left_out.get(dataset, ()), *later)
        return tuple(each for each in known if each.end > start)


def joined(segments: Sequence[HotSegment], new: HotSegment) -> list[HotSegment]:
    """Return the segments with a further one, which is joined with those that it touches or overlaps."""
    apart = []
    for each in segments:
        if each.last.number + 1 < new.first.number or new.last.number + 1 < each.first.number:
            apart.append(each)
        else:
            new = HotSegment(
                min(each.first, new.first, key=lambda block: block.number),
                max(new.last, each.last, key=lambda block: block.number),
            )
    return sorted([*apart, new], key=lambda each: each.first.number)
