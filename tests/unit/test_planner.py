"""The planner's arithmetic: which cells of a stream are planned next, and up to which block."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.config.chain_sync import FollowHead
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.planning.next_ranges import Planned, Room, full_end, next_ranges
from trace_dagster.planning.planner import followed_end
from trace_dagster.registry.streams import StreamSpec


def stream(chunk_size, from_block=0, to_block=None):
    return StreamSpec(
        job_id=UUID(int=1),
        job_name="job",
        dataset_uuid=UUID(int=2),
        dataset_key="blocks",
        dataset=dataset("blocks"),
        chain_id=1,
        rpc_pool="pool",
        chunk_size=chunk_size,
        columns=("block_number",),
        config_hash="hash",
        verify="full",
        options={},
        from_block=from_block,
        to_block=to_block,
    )


def pairs(ranges):
    return [(each.start, each.end) for each in ranges]


def oldest_first(spec, wanted, taken, room):
    """Plan one time, oldest first; return the ranges and the cursor."""
    known = Planned(spec.from_block, wanted.start)
    found = next_ranges(spec, full_end(spec, wanted.end), known, taken, Room(room, room))
    assert found.planned.start == spec.from_block
    return found.ranges, found.planned.end


@pytest.mark.parametrize(
    ("chunk", "bounds", "wanted", "taken", "room", "cells", "cursor"),
    [
        # the grid is absolute; a range is cut at from_block and to_block
        (100, (0, 300), (0, 300), [], 9, [(0, 100), (100, 200), (200, 300)], 300),
        (100, (50, 230), (50, 230), [], 9, [(50, 100), (100, 200), (200, 230)], 230),
        # the cell at the open tip waits until it is full
        (100, (0, None), (0, 250), [], 9, [(0, 100), (100, 200)], 200),
        (100, (0, None), (0, 99), [], 9, [], 0),
        # ranges that already have a task are left out, also if their chunk size differs
        (100, (0, 300), (0, 300), [(100, 200)], 9, [(0, 100), (200, 300)], 300),
        (100, (0, 300), (0, 300), [(0, 150)], 9, [(150, 200), (200, 300)], 300),
        (100, (0, 300), (0, 300), [(0, 300)], 9, [], 300),
        # the look-ahead is full: the cursor is the first cell that was not planned
        (100, (0, 500), (0, 500), [], 2, [(0, 100), (100, 200)], 200),
        (100, (0, 500), (0, 500), [(200, 300)], 2, [(0, 100), (100, 200)], 300),
        # the cursor stays inside the span
        (100, (0, 500), (200, 500), [], 9, [(200, 300), (300, 400), (400, 500)], 500),
    ],
)
def test_next_cells(chunk, bounds, wanted, taken, room, cells, cursor):
    found, next_block = oldest_first(
        stream(chunk, *bounds), BlockRange(*wanted), [BlockRange(*each) for each in taken], room
    )
    assert pairs(found) == cells
    assert next_block == cursor


@st.composite
def plans(draw):
    """Draw a stream, the blocks that it wants, the ranges that have tasks, and the number of ranges that may be
    planned.
    """
    chunk = draw(st.integers(1, 50))
    start = draw(st.integers(0, 200))
    end = start + draw(st.integers(1, 400))
    follows = draw(st.booleans())
    cuts = sorted(draw(st.sets(st.integers(start, end), max_size=8)))
    taken = [BlockRange(*ends) for ends in zip(cuts[::2], cuts[1::2], strict=False)]
    return stream(chunk, start, None if follows else end), BlockRange(start, end), taken, draw(st.integers(1, 30))


@given(plans())
def test_planned_cells_are_new_in_order_and_on_the_grid(plan):
    spec, wanted, taken, room = plan
    planned, cursor = oldest_first(spec, wanted, taken, room)
    assert len(planned) <= room
    assert pairs(planned) == sorted(pairs(planned))
    occupied = [*taken, *planned]
    for one in planned:
        assert wanted.start <= one.start < one.end <= wanted.end
        assert one.start // spec.chunk_size == (one.end - 1) // spec.chunk_size, "within one cell of the grid"
        assert sum(one.start < other.end and other.start < one.end for other in occupied) == 1
    assert all(one.end <= cursor for one in planned)


@given(plans())
def test_going_on_from_the_cursor_covers_everything_that_is_wanted(plan):
    """Plan tick after tick, as the planner does: each block of a fixed target is planned."""
    spec, wanted, taken, room = plan
    done, cursor = list(taken), wanted.start
    for _ in range(1000):
        planned, after = oldest_first(spec, BlockRange(cursor, wanted.end), done, room)
        done += planned
        if after == cursor or after >= wanted.end:
            break
        cursor = after
    left = list(holes(wanted, done))
    if spec.to_block is not None:
        assert left == []
    else:
        assert all(gap.start >= wanted.end // spec.chunk_size * spec.chunk_size for gap in left), "the open tip alone"


@pytest.mark.parametrize(
    ("lag", "latest", "finalized", "end"),
    [(0, 100, 100, 101), (0, 100, 90, 91), (20, 100, 90, 81), (5, 100, 90, 91), (200, 100, 90, 10), (0, 5, 3, 10)],
)
def test_a_followed_job_ends_at_the_final_and_lagged_block_but_not_below_its_start(lag, latest, finalized, end):
    following = SimpleNamespace(tail_lag=lag, spec=FollowHead)
    assert followed_end(following, 10, latest, finalized) == end
