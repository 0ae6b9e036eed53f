"""The column block_timestamp: the header's timestamp in microseconds, one per block."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP, catalogue, dataset
from trace_dagster.datasets.chain import Chain
from trace_dagster.errors import ExtractionFailed, InvalidInput, VerificationFailed
from trace_dagster.ingest.time_span import TimeSpan
from trace_dagster.verify.model import Header
from trace_dagster.verify.rows.block_times import (
    check_times,
    claimed_microseconds,
    compare_times,
    microseconds,
    times_in_rows,
)

SECONDS = Chain(7, "Seven")
MILLISECONDS = Chain(8, "Eight", timestamp_unit="milliseconds")
TIME = pa.timestamp("us", tz="UTC")
LAST = 253_402_300_799
"""The last second of year 9999."""


def header(number, timestamp, *, is_proven=True):
    word = bytes(32)
    return Header(number, word, word, word, word, bytes(256), timestamp=timestamp, is_proven=is_proven)


def rows(numbers, times, **more):
    columns = {"block_number": pa.array(numbers, pa.int64()), BLOCK_TIMESTAMP: pa.array(times, pa.int64()).cast(TIME)}
    return pa.table({**columns, **{name: pa.array(values, pa.int64()) for name, values in more.items()}})


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_every_stream_stores_the_time_right_after_the_block_and_cannot_leave_it_out(name):
    known = dataset(name)
    for columns in (known.stored_columns(), known.stored_columns([]), known.stored_columns([BLOCK_TIMESTAMP])):
        assert columns.count(BLOCK_TIMESTAMP) == 1
        assert columns[columns.index("block_number") + 1] == BLOCK_TIMESTAMP
        assert known.schema(columns).field(BLOCK_TIMESTAMP).type == TIME
    assert BLOCK_TIMESTAMP not in known.all_columns


def test_a_column_that_is_nearly_the_time_is_corrected():
    with pytest.raises(InvalidInput, match="did you mean 'block_timestamp'"):
        dataset("logs").stored_columns(["block_timestam"])


@given(st.lists(st.integers(0, LAST), min_size=1, max_size=5))
def test_a_time_is_the_moment_that_the_header_says(stamps):
    headers = [header(number, each) for number, each in enumerate(stamps)]
    found = pa.array(microseconds(headers, SECONDS), pa.int64()).cast(TIME).to_pylist()
    assert [each.timestamp() for each in found] == stamps
    assert microseconds(headers, MILLISECONDS) == [each * 1000 for each in stamps]
    assert claimed_microseconds(stamps, 0, SECONDS) == microseconds(headers, SECONDS)


def test_the_first_and_the_last_moment_are_times():
    assert claimed_microseconds([0, LAST], 0, SECONDS) == [0, LAST * 1_000_000]
    last = claimed_microseconds([LAST * 1000 + 999], 0, MILLISECONDS)
    assert pa.array(last, pa.int64()).cast(TIME)[0].as_py() == datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


@pytest.mark.parametrize("stamp", [LAST + 1, 1_764_000_000_000, 1 << 63, (1 << 64) - 1, 1 << 255, -1])
def test_what_is_no_time_names_column_block_and_unit(stamp):
    with pytest.raises(ExtractionFailed, match=r"in seconds.*Seven.*block=5 column=block_timestamp") as proven:
        microseconds([header(4, 1), header(5, stamp)], SECONDS)
    assert "start after this block" in str(proven.value)
    with pytest.raises(VerificationFailed, match=r"the node claims a timestamp .*block=5"):
        microseconds([header(5, stamp, is_proven=False)], SECONDS)
    with pytest.raises(VerificationFailed, match="block=6"):
        claimed_microseconds([1, stamp], 5, SECONDS)


def test_a_header_without_a_time_is_refused():
    with pytest.raises(VerificationFailed, match="no timestamp block=5"):
        microseconds([header(5, None)], SECONDS)


def test_rows_of_a_block_have_one_time():
    assert check_times(rows([4, 4, 6], [10, 10, 9]), 7) == ["one block_timestamp per block"]
    assert check_times(rows([], []), 7)
    assert check_times(rows([4], [1]).select(["block_number"]), 7) == []
    with pytest.raises(VerificationFailed, match="different block_timestamps block=4 expected=10 got=11"):
        check_times(rows([3, 4, 4, 6], [10, 10, 11, 9]), 7)


def test_a_null_is_refused():
    with pytest.raises(VerificationFailed, match="null in a column that allows none column=block_timestamp block=4"):
        check_times(rows([3, 4], [1, None]), 7)


def test_another_type_is_refused():
    wrong = pa.table({"block_number": [3], BLOCK_TIMESTAMP: ["2026-01-01"]})
    with pytest.raises(VerificationFailed, match="no time in microseconds"):
        check_times(wrong, 7)


def test_the_time_is_that_of_the_column_timestamp():
    assert "block_timestamp is timestamp" in check_times(rows([3], [5_000_000], timestamp=[5]), 7)
    for wrong in (5_000_001, 6_000_000):
        with pytest.raises(VerificationFailed, match="another time than timestamp block=3"):
            check_times(rows([3], [wrong], timestamp=[5]), 7)
    with pytest.raises(VerificationFailed, match="another time than timestamp"):  # no product may wrap around
        check_times(rows([3], [0], timestamp=[1 << 58]), 7)


def test_times_are_compared_with_the_headers():
    headers = [header(3, 5), header(4, 6), header(5, 7)]
    good = rows([3, 5, 5], [5_000_000, 7_000_000, 7_000_000])
    assert compare_times(good, headers, 7) == {BLOCK_TIMESTAMP}
    assert compare_times(good.select(["block_number"]), headers, 7) == set()
    assert compare_times(good, [msgspec.structs.replace(headers[0], timestamp=None), *headers[1:]], 7) == set()
    claimed = [headers[0], header(4, 6, is_proven=False), headers[2]]
    assert compare_times(good, claimed, 7) == set()
    bad = rows([3, 5, 5], [5_000_000, 7_000_000, 7_000_001])
    for some in (headers, claimed):
        with pytest.raises(VerificationFailed, match="not that of the header block=5 expected=7000000 got=7000001"):
            compare_times(bad, some, 7)


def test_timestamps_of_rows_are_one_per_block():
    table = rows([3, 5, 5], [0, 0, 0], timestamp=[8, 9, 9])
    assert times_in_rows(table, BlockRange(2, 7)) == [0, 8, 0, 9, 0]
    assert times_in_rows(table.drop_columns(["timestamp"]), BlockRange(2, 7)) is None
    with pytest.raises(VerificationFailed, match="different timestamps block=5 expected=9 got=10"):
        times_in_rows(rows([3, 5, 5], [0, 0, 0], timestamp=[8, 9, 10]), BlockRange(2, 7))


def test_a_span_is_the_first_and_the_last_time():
    span = TimeSpan()
    assert span.found is None
    span.add(rows([1, 2], [2_000_000, 1_000_000]))
    span.add(rows([], []))
    span.add(rows([3], [3_000_000]))
    assert [each.timestamp() for each in span.found] == [1, 3]


@pytest.mark.parametrize(
    "table", [pa.table({"block_number": [1]}), pa.table({BLOCK_TIMESTAMP: ["x"]}), rows([1], [1 << 60])]
)
def test_the_span_of_rows_without_such_a_time_is_not_known(table):
    span = TimeSpan()
    for each in (rows([1], [5]), table, rows([1], [5])):
        span.add(each)
    assert span.found is None


def test_the_unit_comes_from_the_chain():
    assert replace(SECONDS, timestamp_unit="milliseconds").timestamp_unit == "milliseconds"
    assert SECONDS.timestamp_unit == "seconds"
