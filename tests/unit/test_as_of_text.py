"""What a user writes for ``--as-of``: each value means one thing, and everything else is refused with the reason."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import InvalidInput
from trace_dagster.query.as_of import parse_as_of
from trace_dagster.registry.as_of import AsOf

ZONES = st.builds(
    timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(lambda d: d - d % timedelta(minutes=1))
)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=ZONES)


@given(st.integers(0, MAX_BLOCK - 1))
def test_every_block_is_read_back(block):
    assert parse_as_of([str(block)]) == AsOf(block)


@given(TIMES, st.sampled_from("T "))
def test_every_time_with_a_zone_is_read_back(time, separator):
    found = parse_as_of([time.isoformat(sep=separator)]).time
    assert found == time
    assert found.tzinfo is UTC


@given(st.dates())
def test_a_date_is_its_first_moment_in_utc(day):
    assert parse_as_of([day.isoformat()]) == AsOf(time=datetime(day.year, day.month, day.day, tzinfo=UTC))


@given(TIMES)
def test_a_time_without_a_zone_is_refused(time):
    with pytest.raises(InvalidInput, match="needs a zone"):
        parse_as_of([time.replace(tzinfo=None).isoformat()])
    with pytest.raises(InvalidInput, match="needs a time zone"):
        AsOf(time=time.replace(tzinfo=None))


@given(st.text())
def test_any_other_text_is_refused_and_nothing_else_is_raised(text):
    try:
        found = parse_as_of([text])
    except InvalidInput:
        return
    kinds = [found.block is not None, found.time is not None, found.common]
    assert kinds.count(True) == 1


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1.5", "0x10", "1_000", "٣", "latest", "COMMON", str(MAX_BLOCK), "9" * 20, "2024-13-01", "2024-W01-1",
     "2024-02-30T00:00Z", "0001-01-01T00:00+14:00", "2024-05-01T12:00:00Z; drop"],
)  # fmt: skip
def test_these_are_refused(text):
    with pytest.raises(InvalidInput, match="as_of"):
        parse_as_of([text])


@given(st.permutations(["5", "2024-05-01", "common"]), st.booleans())
def test_values_of_several_kinds_combine_in_any_order(texts, finalized_only):
    assert parse_as_of(texts, finalized_only=finalized_only) == AsOf(
        5, datetime(2024, 5, 1, tzinfo=UTC), common=True, finalized_only=finalized_only
    )


@given(st.sampled_from([["5", "6"], ["2024-05-01", "2024-05-02T00:00Z"], ["common", "common"]]))
def test_two_values_of_a_kind_are_refused(texts):
    with pytest.raises(InvalidInput, match="two values of one kind"):
        parse_as_of(texts)


@given(st.integers(max_value=-1) | st.integers(min_value=MAX_BLOCK))
def test_no_block_is_below_zero_or_beyond_the_registry(block):
    with pytest.raises(InvalidInput, match="a block from 0 on"):
        AsOf(block)
