"""The number of ranges that the dispatcher puts into one run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange
from trace_dagster.planning.dispatcher import (
    LEAST_RANGES_PER_RUN,
    MOST_RANGES_PER_RUN,
    RANGES_PER_RUN,
    SKIPPED_AT_ONCE,
    ranges_at_rate,
    window,
)


@pytest.mark.parametrize(
    ("rate", "chunk", "ranges"),
    [
        (None, 1000, RANGES_PER_RUN),
        (0.001, 1000, LEAST_RANGES_PER_RUN),
        (100.0, 1000, 60),
        (500.0, 1000, 300),
        (1e9, 1, MOST_RANGES_PER_RUN),
    ],
)
def test_a_run_takes_as_many_ranges_as_take_ten_minutes(rate, chunk, ranges):
    assert ranges_at_rate(rate, chunk) == ranges


def test_a_long_chain_takes_few_runs():
    """46,000 ranges of 1,000 blocks at 100 blocks a second: the goal is at most 500 runs where that is possible."""
    assert -(-46_000 // RANGES_PER_RUN) <= 500
    assert -(-46_000 // ranges_at_rate(160.0, 1000)) <= 500


def task(position, stream=0):
    return {"range_start": position * 10, "range_end": position * 10 + 10, "stream": stream}


def order(rows):
    """Return the positions in block order."""
    return {BlockRange(row["range_start"], row["range_end"]).key: row["range_start"] // 10 for row in rows}


@pytest.mark.parametrize(
    ("first", "positions", "most", "newest_first", "expected"),
    [
        (0, [0, 1, 2], 10, False, [0, 1, 2]),
        (0, [2, 0, 1], 10, False, [0, 1, 2]),
        (0, [0, 1, 2, 3, 4], 2, False, [0, 1]),
        (0, [0, 5], 10, False, [0, 5]),  # the run skips a few ranges that lie between two due ones
        (0, [0, 5], 3, False, [0]),  # but they count, because a run's tags name only its first and last range
        (0, [0, SKIPPED_AT_ONCE + 1], 1000, False, [0, SKIPPED_AT_ONCE + 1]),
        (0, [0, SKIPPED_AT_ONCE + 2], 1000, False, [0]),
        # history goes backwards from the tip
        (4, [0, 1, 2, 3, 4], 2, True, [3, 4]),
        (4, [0, 1, 2, 3, 4], 10, True, [0, 1, 2, 3, 4]),
        (400, [0, 1, 400], 10, True, [400]),
        # the tip goes first also if history is to go forwards
        (400, [0, 1, 2, 399, 400], 10, False, [399, 400]),
    ],
)
def test_a_run_takes_the_most_wanted_range_and_those_near_it(first, positions, most, newest_first, expected):
    rows = sorted([task(position) for position in positions], key=lambda row: row["range_start"] != first * 10)
    found = window(rows, order(rows), most, newest_first=newest_first)
    assert [row["range_start"] // 10 for row in found] == expected


@given(
    positions=st.lists(st.integers(0, 500), min_size=1, max_size=60, unique=True),
    streams=st.integers(1, 3),
    most=st.integers(1, 100),
    newest_first=st.booleans(),
)
def test_runs_take_every_due_task_once_and_no_more_ranges_than_a_run_holds(positions, streams, most, newest_first):
    left = [task(position, stream) for position in positions for stream in range(streams)]
    held = []
    while left:
        left.sort(key=lambda row: row["range_start"], reverse=newest_first)
        found = window(left, order(left), most, newest_first=newest_first)
        places = [row["range_start"] // 10 for row in found]
        assert left[0] in found
        assert places == sorted(places)
        assert places[-1] - places[0] < most
        assert all(after - before <= SKIPPED_AT_ONCE + 1 for before, after in zip(places, places[1:], strict=False))
        held += found
        left = [row for row in left if row not in found]
    assert sorted((row["range_start"], row["stream"]) for row in held) == sorted(
        (position * 10, stream) for position in positions for stream in range(streams)
    )
