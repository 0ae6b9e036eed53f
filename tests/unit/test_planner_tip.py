"""The planner at the tip: newest first, ranges that are held back while they are hot, and cells that are cut."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_planner import pairs, stream
from trace_dagster.blocks import BlockRange, holes, merged
from trace_dagster.config.chain_sync import FollowHead
from trace_dagster.planning.cold import due_cold_end
from trace_dagster.planning.next_ranges import HotBlocks, Planned, Room, full_end, next_ranges, open_end


def ranges(*ends):
    return [BlockRange(*each) for each in ends]


def hot(*ends, followed=False):
    return HotBlocks(tuple(ranges(*ends)), followed=followed)


@pytest.mark.parametrize(
    ("known", "taken", "room", "chosen", "planned"),
    [
        # nothing is known: downwards from the newest full cell
        ((0, 0), [], 2, [(400, 500), (300, 400)], (300, 500)),
        ((0, 0), [], 9, [(400, 500), (300, 400), (200, 300), (100, 200), (50, 100)], (50, 500)),
        ((300, 500), [], 2, [(200, 300), (100, 200)], (100, 500)),
        # new cells at the top come first, then history
        ((200, 400), [], 2, [(400, 500), (100, 200)], (100, 500)),
        # many new cells at the top, as after a downtime: what was known below is looked at again
        ((50, 200), [], 2, [(400, 500), (300, 400)], (300, 500)),
        # ranges that have a task are left out, also those of another chunk size
        ((0, 0), [(300, 500), (150, 220)], 2, [(220, 300), (100, 150)], (100, 500)),
        ((50, 500), [], 9, [], (50, 500)),
    ],
)
def test_newest_first(known, taken, room, chosen, planned):
    found = next_ranges(stream(100, 50), 500, Planned(*known), ranges(*taken), Room(room, room), newest_first=True)
    assert pairs(found.ranges) == chosen
    assert found.planned == Planned(*planned)


@pytest.mark.parametrize(
    ("known", "chosen", "planned"),
    [((0, 100), [(400, 500), (300, 400)], (0, 100)), ((0, 300), [(400, 500), (300, 400)], (0, 500))],
)
def test_the_tip_comes_first_also_if_history_goes_forwards(known, chosen, planned):
    """There is no room for history, but for ranges from block 300 on."""
    found = next_ranges(stream(100), 500, Planned(*known), [], Room(0, 9, tip_start=300))
    assert pairs(found.ranges) == chosen
    assert found.planned == Planned(*planned)


@st.composite
def chains(draw):
    """Draw a stream, its first head, the room of each tick, and by how much the head moves between ticks."""
    chunk = draw(st.integers(1, 30))
    start = draw(st.integers(0, 100))
    head = start + draw(st.integers(1, 600))
    ticks = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 90)), min_size=1, max_size=12))
    return stream(chunk, start), head, ticks


@given(chains(), st.booleans())
def test_every_full_cell_is_planned_once_whatever_the_order(chain, newest_first):
    spec, head, ticks = chain
    known, done = Planned(spec.from_block, spec.from_block), []
    for room, more in [*ticks, *[(8, 0)] * 200]:
        end = full_end(spec, head)
        before = list(holes(BlockRange(spec.from_block, end), done)) if end > spec.from_block else []
        found = next_ranges(spec, end, known, merged(done), Room(room, room), newest_first=newest_first)
        wanted = sorted(found.ranges, reverse=newest_first)
        assert pairs(found.ranges) == pairs(wanted)
        if found.ranges and newest_first:
            assert found.ranges[0].end == before[-1].end, "nothing newer is left out"
        done += found.ranges
        settled = (room, more) == (8, 0) and not found.ranges
        known = found.planned
        assert not [gap for each in known.ranges() for gap in holes(each, done) if gap.end > spec.from_block]
        head += more
        if settled:
            break
    end = full_end(spec, head)
    assert merged(done) == ([BlockRange(spec.from_block, end)] if end > spec.from_block else [])
    assert sum(map(len, done)) == sum(map(len, merged(done)))


@pytest.mark.parametrize(
    ("blocks", "piece", "held"),
    [
        (hot(), (100, 200), False),
        (hot((100, 250)), (100, 200), True),
        (hot((150, 250)), (100, 200), False),  # some of its rows are nowhere yet
        (hot((100, 150)), (100, 200), False),  # the follower stands still
        (hot((100, 150), followed=True), (100, 200), True),  # its other rows come in a moment
        (hot((150, 250), followed=True), (300, 400), True),
        (hot((150, 250), (500, 600), followed=True), (300, 400), False),  # after a downtime: between both
        (hot((100, 200), (500, 600), followed=True), (100, 200), True),
    ],
)
def test_a_range_is_held_back_while_all_of_its_rows_are_hot(blocks, piece, held):
    assert blocks.hold(BlockRange(*piece)) is held


def test_ranges_that_are_held_back_are_not_known_to_be_planned():
    blocks = hot((300, 450))
    found = next_ranges(stream(100), 500, Planned(0, 0), [], Room(2, 2), newest_first=True, is_held=blocks.hold)
    assert pairs(found.ranges) == [(400, 500), (200, 300)]
    assert pairs(found.held) == [(300, 400)]
    assert found.planned == Planned(200, 300)


def following(**keys):
    return FollowHead(kind="follow_head", from_block=0, **keys)


@pytest.mark.parametrize(
    ("keys", "eligible", "held", "cold_end"),
    [
        ({}, 399, [], 100),
        ({}, 399, [(200, 300)], 300),  # a full cell is enough by default
        ({"cold_after_blocks": 200}, 399, [(200, 300)], 100),
        ({"cold_after_blocks": 200}, 400, [(200, 300), (300, 400)], 400),
        ({"cold_cron": "0 3 * * *"}, 10_000, [(200, 300), (9_900, 10_000)], 100),
        ({"cold_cron": "0 3 * * *", "max_cold_lag": 50}, 249, [(200, 240)], 100),
        ({"cold_cron": "0 3 * * *", "max_cold_lag": 50}, 250, [(200, 250)], 250),
        ({"cold_after_blocks": 500, "max_cold_lag": 50}, 250, [(200, 250)], 250),
    ],
)
def test_when_hot_ranges_are_due(keys, eligible, held, cold_end):
    assert due_cold_end(following(**keys), 100, 100, eligible, ranges(*held)) == cold_end


@pytest.mark.parametrize(
    ("end", "lag", "taken", "open_to"),
    [
        (459, 30, [], 430),
        (429, 30, [], 400),
        (430, 30, [], 430),
        (499, 30, [], 460),  # as many blocks are left for the last range
        (480, 30, [(400, 430)], 460),
        (499, 25, [], 475),
        (459, 30, [(400, 430)], 400),
        (460, 30, [(400, 430)], 460),
        (499, 30, [(400, 460)], 400),  # a cut would leave too few: the cell waits until it is full
        (499, 60, [], 400),
        (459, None, [], 400),
    ],
)
def test_where_the_cell_at_the_tip_is_cut(end, lag, taken, open_to):
    assert open_end(stream(100), end, lag, ranges(*taken)) == open_to


@given(
    chunk=st.integers(2, 60),
    lag=st.integers(2, 40),
    start=st.integers(0, 70),
    steps=st.lists(st.integers(0, 45), min_size=1, max_size=60),
    hot_from=st.integers(0, 400) | st.none(),
    newest_first=st.booleans(),
)
def test_no_range_of_a_cut_cell_is_shorter_than_the_lag(chunk, lag, start, steps, hot_from, newest_first):
    """Whatever the head does, ranges have max_cold_lag blocks or are what the bounds leave of a cell."""
    spec, mode = stream(chunk, start), following(max_cold_lag=max(10, lag)).model_copy(update={"max_cold_lag": lag})
    known, done, cold_end, head = Planned(start, start), [], 0, start
    for step in steps:
        head += step
        cell = BlockRange(head // chunk * chunk, head // chunk * chunk + chunk)
        near = merged(each for each in done if each.start < cell.end and cell.start < each.end)
        last = open_end(spec, head, lag, near)
        blocks = HotBlocks(() if hot_from is None or hot_from >= head else (BlockRange(hot_from, head),), followed=True)
        for _ in range(2):
            found = next_ranges(
                spec,
                last,
                known,
                merged(done),
                Room(99, 99),
                newest_first=newest_first,
                is_held=lambda piece, end=cold_end, blocks=blocks: piece.end > end and blocks.hold(piece),
            )
            cold_end = due_cold_end(mode, chunk, cold_end, head, found.held)
            if not found.held:
                break
        done += found.ranges
        known = found.planned
    first_cell = BlockRange(start, (start // chunk + 1) * chunk)
    for each in done:
        assert len(each) >= min(lag, chunk, len(first_cell) if each.start == start else chunk)
        assert each.start // chunk == (each.end - 1) // chunk
    cells_cut = Counter(each.start // chunk for each in done)
    assert max(cells_cut.values(), default=0) <= max(1, chunk // lag)
    if full_end(spec, head) > start and (left := list(holes(BlockRange(start, full_end(spec, head)), done))):
        assert head - left[0].start < min(lag, chunk), "nothing that is full waits longer"
