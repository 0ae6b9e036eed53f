"""Python values as parameters: the SQL sees the same value and type, through JSON."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from fractions import Fraction

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.client.wire import wire_as_of, wire_integer, wire_parameters
from trace_dagster.errors import InvalidInput
from trace_dagster.query.parameters import literal

ZONED = datetime.datetime(2024, 5, 1, 12, 0, 0, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**127) + 1, 2**127 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18, places=9),
    st.binary(max_size=40),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(datetime.UTC)),
)


def over_the_wire(value):
    """Return a value as the service reads it."""
    sent = json.dumps(wire_parameters({"x": value}), allow_nan=False)
    return json.loads(sent, parse_float=Decimal)["x"]


@given(VALUES)
def test_a_value_is_the_same_literal_after_its_way_through_json(value):
    assert literal(over_the_wire(value), "x") == literal(value, "x")


@given(st.lists(VALUES, max_size=5))
def test_a_list_too(values):
    assert literal(over_the_wire(values), "x") == literal(values, "x")
    assert wire_parameters(values) == over_the_wire(values)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, "BIGINT"),
        (True, "BOOLEAN"),
        (0.5, "DOUBLE"),
        (Decimal("0.5"), "DECIMAL(1,1)"),
        ("0xab", "VARCHAR"),
        (memoryview(b"\xab"), "BLOB"),
        (bytearray(b"\xab"), "BLOB"),
        (datetime.date(2024, 5, 1), "DATE"),
        (ZONED, "TIMESTAMP WITH TIME ZONE"),
        (ZONED.replace(tzinfo=None), "TIMESTAMP"),
        ((1, 2), "BIGINT[]"),
        (np.int64(7), "BIGINT"),
        (np.uint8(7), "BIGINT"),
        (np.float64(0.5), "DOUBLE"),
        (np.str_("a"), "VARCHAR"),
        (np.True_, "BOOLEAN"),
        (pd.Timestamp("2024-05-01", tz="UTC"), "TIMESTAMP WITH TIME ZONE"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_type_in_sql_is_that_of_python(value, kind):
    with duckdb.connect() as connection:
        written = literal(over_the_wire(value), "x")
        assert connection.execute(f"select typeof({written})").fetchone() == (kind,)


@pytest.mark.parametrize(
    "value",
    [object(), {1}, {"a": 1}, Fraction(1, 3), 1j, np.array([1]), np.array([True]), [[{}]]],
    ids=lambda each: type(each).__name__,
)
def test_another_value_is_refused_with_its_type(value):
    with pytest.raises(InvalidInput, match=r"the value of parameter \$x has type \w+: give a text"):
        wire_parameters({"x": value})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((number, "is NaN or infinite") for number in (float("nan"), np.float64("inf"), Decimal("-Infinity"))),
        (datetime.time(12), "is a time of day, which is no parameter: give a text"),
        (pd.Timestamp("2024-01-01 00:00:00.123456789"), "microseconds at most: give it as a text and cast it to TIME"),
        (pd.Timestamp("2024-01-01 00:00:00.000000001", tz="UTC"), "microseconds at most"),
    ],
    ids=str,
)
def test_a_value_that_sql_knows_and_json_does_not_is_given_as_a_text(value, said):
    for params in ({"x": value}, {"x": [value]}):
        with pytest.raises(InvalidInput, match=rf"the value of parameter \$x .*{said}"):
            wire_parameters(params)


def test_a_bool_of_numpy_is_a_bool():
    assert wire_parameters([np.True_, [np.False_]]) == [True, [False]]


def test_a_time_of_pandas_without_nanoseconds_keeps_its_microseconds():
    (found,) = wire_parameters([pd.Timestamp("2024-01-01 00:00:00.123456")])
    assert found == {"type": "timestamp", "value": "2024-01-01T00:00:00.123456"}


TOO_LARGE = [2**127, -(2**127), 10**5000]


@pytest.mark.parametrize("value", [*TOO_LARGE, [[TOO_LARGE[2]]]], ids=["39", "negative", "5000", "list"])
def test_an_integer_of_more_digits_than_sql_has_is_refused(value):
    with pytest.raises(InvalidInput, match=r"the value of parameter \$x has more than 38 digits: give it as a text"):
        wire_parameters({"x": value})
    assert wire_parameters([2**127 - 1, 1 - 2**127]) == [2**127 - 1, 1 - 2**127]


@pytest.mark.parametrize(("given_", "sent"), [(5, 5), (0, 0), (np.int64(5), 5), (np.uint8(5), 5)])
def test_a_whole_number(given_, sent):
    found = wire_integer(given_, "limit")
    assert (found, type(found)) == (sent, int)


@pytest.mark.parametrize("given_", [True, np.True_, 1.0, "5", None, [5], *TOO_LARGE], ids=lambda each: str(type(each)))
def test_another_number_is_refused(given_):
    with pytest.raises(InvalidInput, match=r"limit is a whole number of at most 38 digits"):
        wire_integer(given_, "limit")


def test_a_value_may_say_its_type_itself():
    long = {"type": "integer", "value": "7"}
    assert wire_parameters([long]) == [long]


def test_one_text_is_no_list_of_parameters():
    for given_ in ("abc", b"abc", 5, object()):
        with pytest.raises(InvalidInput, match="params is a mapping"):
            wire_parameters(given_)


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        (5, 5),
        (np.int64(5), 5),
        ("common", "common"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (ZONED, "2024-05-01T12:00:00.000001+02:00"),
        ([5, "common"], [5, "common"]),
        ((5,), [5]),
    ],
)
def test_a_cut(given_, sent):
    assert wire_as_of(given_) == sent


@pytest.mark.parametrize(
    "given_", [True, 1.5, None, [], (), [None], {"a": 1}, 10**5000], ids=lambda each: str(type(each))
)
def test_another_cut_is_refused(given_):
    with pytest.raises(InvalidInput, match="as_of is a block, a time, `common`, or a list of these"):
        wire_as_of(given_)
