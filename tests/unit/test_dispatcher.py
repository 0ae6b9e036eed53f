"""How many ranges a run takes."""

import pytest

from trace_dagster.planning.dispatcher import LEAST_RANGES_PER_RUN, MOST_RANGES_PER_RUN, RANGES_PER_RUN, ranges_at_rate


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
