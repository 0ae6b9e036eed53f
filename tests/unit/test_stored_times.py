"""Times of rows compared with those of stored blocks."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import VerificationFailed
from trace_dagster.maintenance.stored_times import has_times, same_times

START = datetime(2026, 1, 1, tzinfo=UTC)
PIECE = BlockRange(100, 110)


def rows(numbers, shift=None, at=None):
    times = [START + timedelta(seconds=12 * number) for number in numbers]
    if at is not None:
        times[at] = None if shift is None else times[at] + shift
    return pa.table(
        {"block_number": pa.array(numbers, pa.int64()), "block_timestamp": pa.array(times, pa.timestamp("us", "UTC"))}
    )


BLOCKS = rows(range(100, 110))


def test_rows_have_the_times_of_their_blocks():
    assert same_times(rows([100, 100, 104, 109]), BLOCKS, PIECE)
    assert same_times(rows([]), BLOCKS, PIECE)


@pytest.mark.parametrize("shift", [timedelta(microseconds=1), None])
def test_another_time_or_none_is_named_with_its_block(shift):
    with pytest.raises(VerificationFailed, match="block_timestamp is not that of the block") as caught:
        same_times(rows([100, 103, 104], shift, at=1), BLOCKS, PIECE)
    assert caught.value.facts["block"] == 103


@pytest.mark.parametrize("blocks", [None, rows(range(100, 109)), rows([100, *range(100, 109)])])
def test_nothing_is_compared_without_every_block_once(blocks):
    assert not same_times(rows([100]), blocks, PIECE)


def test_blocks_have_their_own_times():
    assert has_times("logs", [("block_number", "int64"), ("block_timestamp", "timestamp[us, tz=UTC]")])
    assert not has_times("logs", [("block_number", "int64")])
    assert not has_times("blocks", [("block_timestamp", "timestamp[us, tz=UTC]")])
