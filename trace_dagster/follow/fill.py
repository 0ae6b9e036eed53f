"""Which blocks below the head are fetched next, so that the hot rows reach down to the last whole cell border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import BlockRange, holes


@dataclass(frozen=True, slots=True)
class Wanted:
    """The blocks that a dataset should have: from ``start`` to the head, of which ``covered`` are there."""

    dataset_uuid: UUID
    start: int
    covered: tuple[BlockRange, ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """Blocks that are missing, and the datasets that lack all of them."""

    block_range: BlockRange
    datasets: frozenset[UUID]


def next_fill(head: int, wanted: Sequence[Wanted], most: int) -> Fill | None:
    """Return the highest blocks up to ``head`` that a dataset lacks, at most ``most``; None if none is missing."""
    gaps = {each.dataset_uuid: gap for each in wanted if (gap := _highest_gap(each, head + 1)) is not None}
    if not gaps:
        return None
    end = max(gap.end for gap in gaps.values())
    lacking = {dataset: gap for dataset, gap in gaps.items() if gap.end == end}
    others = [gap.end for gap in gaps.values() if gap.end < end]
    start = max([end - most, *others, *(gap.start for gap in lacking.values())])
    return Fill(BlockRange(start, end), frozenset(lacking))


def _highest_gap(wanted: Wanted, end: int) -> BlockRange | None:
    if wanted.start >= end:
        return None
    return max(holes(BlockRange(wanted.start, end), wanted.covered), default=None)
