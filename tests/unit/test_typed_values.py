"""Values of parameters that JSON cannot express: each means the same value and type as in Python."""

from __future__ import annotations

import duckdb
import pandas as pd
import pytest

from trace_dagster.errors import InvalidInput
from trace_dagster.query.parameters import literal


@pytest.mark.parametrize(
    ("kind", "text", "type_in_sql", "shown"),
    [
        ("integer", "170141183460469231731687303715884105727", "HUGEINT", "170141183460469231731687303715884105727"),
        ("integer", "-5", "BIGINT", "-5"),
        ("decimal", "1.50", "DECIMAL(3,2)", "1.50"),
        ("decimal", "150e-2", "DECIMAL(3,2)", "1.50"),
        ("double", "0.1", "DOUBLE", "0.1"),
        ("double", "1e300", "DOUBLE", "1e+300"),
        ("binary", "0x00ab", "BLOB", "\\x00\\xAB"),
        ("binary", "0x", "BLOB", ""),
        ("date", "2024-05-01", "DATE", "2024-05-01"),
        ("timestamp", "2024-05-01T12:00:00.000001", "TIMESTAMP", "2024-05-01 12:00:00.000001"),
        ("timestamp", "2024-05-01T12:00:00.123456000", "TIMESTAMP", "2024-05-01 12:00:00.123456"),
        ("timestamp", "2024-05-01T14:00:00+02:00", "TIMESTAMP WITH TIME ZONE", "2024-05-01 12:00:00+00"),
    ],
)
def test_a_value_has_its_type_in_sql(kind, text, type_in_sql, shown):
    written = literal({"type": kind, "value": text}, "x")
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        found = connection.execute(f"select typeof({written}), cast({written} as varchar)").fetchone()
    assert found == (type_in_sql, shown)


def test_a_list_may_hold_them():
    assert literal([{"type": "binary", "value": "0xab"}, None], "x") == "[unhex('ab'), NULL]"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"type": "double"},
        {"type": "text", "value": "a"},
        {"type": "double", "value": 1},
        {"type": ["double"], "value": "1"},
        {"type": "double", "value": "1", "more": 1},
    ],
)
def test_another_object_is_refused_with_the_types_that_there_are(given):
    with pytest.raises(InvalidInput, match=r"\$x must be .* one of integer, decimal, double, binary, date, timestamp"):
        literal(given, "x")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", "1.5"),
        ("integer", "٣"),
        ("integer", "9" * 5000),
        ("decimal", "NaN"),
        ("decimal", "1'); drop table x; --"),
        ("double", "inf"),
        ("double", "1e9999"),
        ("binary", "0xabc"),
        ("binary", "ab"),
        ("binary", "0xab ab"),
        ("date", "2024-02-30"),
        ("timestamp", "yesterday"),
    ],
)
def test_a_text_that_is_no_value_of_its_type_is_refused(kind, text):
    with pytest.raises(InvalidInput, match=r"parameter \$x"):
        literal({"type": kind, "value": text}, "x")


@pytest.mark.parametrize("fraction", [".123456789", ",123456789", ".0000001", ".1234567"])
@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
def test_a_time_below_microseconds_is_refused(fraction, zone):
    with pytest.raises(InvalidInput, match="microseconds at most: give it as a text and cast it to TIMESTAMP_NS"):
        literal({"type": "timestamp", "value": f"2024-01-01T00:00:00{fraction}{zone}"}, "x")


def test_so_is_one_of_pandas():
    with pytest.raises(InvalidInput, match="microseconds at most"):
        literal(pd.Timestamp("2024-01-01 00:00:00.123456789"), "x")
