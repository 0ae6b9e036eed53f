"""Grids: the streams that share a partitions definition, and the partition keys that it shall have.

A key is there for every range that is planned or committed, and for every cell that the planner can still plan. So a
stream whose span is committed has materialized each of its partitions, also after its bounds or chunk_size changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from trace_dagster.blocks import BlockRange, cells, holes
from trace_dagster.errors import InvalidInput
from trace_dagster.planning.next_ranges import full_end
from trace_dagster.planning.planner import taken_ranges
from trace_dagster.planning.run_groups import partitions_name
from trace_dagster.registry.connection import Session
from trace_dagster.registry.streams import StreamRow

SHOWN_AHEAD = 100_000
"""Most cells of a stream's span for which keys are added before they are planned: Dagster shows more of them badly."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Streams of one job with one chunk size, also those that are paused or were taken out of the file."""

    name: str
    """The name of the partitions definition."""
    chunk_size: int
    streams: tuple[StreamRow, ...]


def grids(streams: Sequence[StreamRow]) -> Iterator[Grid]:
    """Yield the grid of every stream."""
    for name, members in groupby(sorted(streams, key=partitions_name), key=partitions_name):
        found = tuple(members)
        yield Grid(name, found[0].chunk_size, found)


def spans_ahead(session: Session, grid: Grid) -> list[BlockRange]:
    """Return the blocks that the planner can plan for a stream of the grid, but has not planned yet."""
    found = {span for stream in grid.streams if stream.enabled for span in _ahead(session, stream)}
    return sorted(found)


def held_ranges(session: Session, grid: Grid) -> list[BlockRange]:
    """Return, in block order, every range of the grid's streams that is visible, planned, or in a run."""
    rows = session.all("held_ranges", dataset_uuids=[stream.dataset_uuid for stream in grid.streams])
    return [BlockRange(row["range_start"], row["range_end"]) for row in rows]


def wanted_keys(session: Session, grid: Grid) -> list[str]:
    """Return the partition keys that the grid shall have, in block order."""
    ahead = (cell for span in spans_ahead(session, grid) for cell in cells(span, grid.chunk_size))
    return [found.key for found in sorted({*held_ranges(session, grid), *ahead})]


def covered_ranges(session: Session, grid: Grid) -> dict[UUID, list[BlockRange]]:
    """Return by dataset the ranges of the grid's other streams whose blocks it has committed in ranges of its own.

    Streams of one grid have different ranges if one was added after a change of ``to_block`` or ``chunk_size``.
    """
    found: dict[UUID, list[BlockRange]] = {}
    if len(grid.streams) > 1:
        datasets = [stream.dataset_uuid for stream in grid.streams]
        for row in session.all("covered_ranges_of_others", dataset_uuids=datasets):
            found.setdefault(row["dataset_uuid"], []).append(BlockRange(row["range_start"], row["range_end"]))
    return found


def may_be_planned(session: Session, grid: Grid, key: str) -> bool:
    """Return whether a key is a cell that a stream of the grid may still plan, now or when its chain has grown."""
    try:
        block_range = BlockRange.from_key(key)
    except InvalidInput:
        return False
    return any(
        stream.enabled and stream.is_cell(block_range) and not taken_ranges(session, stream, block_range)
        for stream in grid.streams
    )


def _ahead(session: Session, stream: StreamRow) -> Iterator[BlockRange]:
    """Yield the blocks of full cells that are not planned, also while their rows are hot: users may launch them."""
    if stream.eligible_end is None or (stream.eligible_end - stream.from_block) // stream.chunk_size > SHOWN_AHEAD:
        return
    end = full_end(stream, stream.eligible_end)
    planned = stream.planned or BlockRange(end, end + 1)
    for start, stop in ((stream.from_block, planned.start), (planned.end, end)):
        if start < min(stop, end):
            wanted = BlockRange(start, min(stop, end))
            yield from holes(wanted, taken_ranges(session, stream, wanted))
