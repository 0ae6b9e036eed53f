"""Query results as JSON, for every type of DuckDB."""

import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.query.column_sql import json_column_sql
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.render import converter, to_json, value

EXACT = 2**53


def rendered(expression):
    """Return DuckDB's value of an expression after a round trip through JSON text."""
    with duckdb.connect() as connection:
        relation = connection.sql(f"select {expression}")
        (kind,) = relation.types
        (found,) = relation.project(json_column_sql("#1", kind)).fetchone()
    return json.loads(json.dumps(converter(kind)(found), allow_nan=False))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("null", None),
        ("true", True),
        ("7::utinyint", 7),
        (f"{EXACT}::bigint", EXACT),
        (f"{EXACT + 1}::bigint", str(EXACT + 1)),
        (f"{-EXACT}::bigint", -EXACT),
        (f"{-EXACT - 1}::bigint", str(-EXACT - 1)),
        ("18446744073709551615::ubigint", "18446744073709551615"),
        ("170141183460469231731687303715884105727::hugeint", str(2**127 - 1)),
        ("(-170141183460469231731687303715884105727)::hugeint", str(1 - 2**127)),
        ("'5'::bignum", "5"),
        (f"'{2**255 + 1}'::bignum", str(2**255 + 1)),
        (f"'-{2**255 + 1}'::bignum", str(-(2**255) - 1)),
        ("0.1::double", 0.1),
        ("'nan'::double", "nan"),
        ("'inf'::double", "inf"),
        ("'-inf'::float", "-inf"),
        ("12345678901234567890123456789.5::decimal(38, 3)", "12345678901234567890123456789.500"),
        ("(-5)::decimal(38, 0)", "-5"),
        ("0.00000001::decimal(18, 8)", "0.00000001"),
        (f"{EXACT + 1}::decimal(38, 0)", str(EXACT + 1)),
        ("99999999999999999999999999999999999999::decimal(38, 0)", "9" * 38),
        ("100::decimal(38, 0)", "100"),
        ("1.50::decimal(38, 2)", "1.50"),
        ("'\\x00\\xAB'::blob", "0x00ab"),
        ("''::blob", "0x"),
        ("'héllo'", "héllo"),
        ("date '2026-11-21'", "2026-11-21"),
        ("timestamp '2026-11-21 08:09:10.5'", "2026-11-21T08:09:10.500000"),
        ("timestamptz '2026-11-21 08:09:10.5+00'", "2026-11-21T08:09:10.500000+00:00"),
        ("time '08:09:10'", "08:09:10"),
        ("interval 90 seconds", "00:01:30"),
        ("[{'i': interval 1 month}]", [{"i": "1 month"}]),
        ("'5000-01-01 (BC)'::date", "5000-01-01 (BC)"),
        ("'c0ffee00-0000-4000-8000-000000000000'::uuid", "c0ffee00-0000-4000-8000-000000000000"),
        ("'101'::bit", "101"),
        (f"[1, {EXACT + 1}, null]", [1, str(EXACT + 1), None]),
        ("['\\xAB'::blob]::blob[1]", ["0xab"]),
        (f"{{'a': {EXACT + 1}, 'b': {{'c': '\\xAB'::blob}}}}", {"a": str(EXACT + 1), "b": {"c": "0xab"}}),
        ("[{'a': 'nan'::double}]", [{"a": "nan"}]),
        (f"['{2**255}'::bignum]", [str(2**255)]),
        ("map {'k': '\\xAB'::blob}", {"k": "0xab"}),
        ("['5'::bignum]", ["5"]),
        ("{'a': '5'::bignum, 'b': [1.5]}", {"a": "5", "b": ["1.5"]}),
        ("row(1, '5'::bignum)", [1, "5"]),
        ("null::struct(a bignum)", None),
        ("map {1.50: '5'::bignum}", {"1.50": "5"}),
        ("map {[1]: '5'::bignum}", {"[1]": "5"}),
        ("map {'key': [1], 'value': [2]}", {"key": [1], "value": [2]}),
    ],
)
def test_a_value_of_each_type(expression, expected):
    assert rendered(expression) == expected


@given(st.integers(-(2**300), 2**300))
def test_an_integer_is_a_number_if_a_double_holds_it_and_else_text(number):
    shown = value(number)
    assert int(shown) == number
    if isinstance(shown, int):
        assert int(float(shown)) == number
    else:
        assert abs(number) > EXACT


def test_rows_are_lists_in_column_order_with_repeated_names_kept():
    result = QueryResult((("a", "INTEGER"), ("a", "VARCHAR")), [(1, "x"), (2, "y")], truncated=True)
    assert to_json(result) == {
        "columns": [{"name": "a", "type": "INTEGER"}, {"name": "a", "type": "VARCHAR"}],
        "rows": [[1, "x"], [2, "y"]],
        "truncated": True,
    }


def test_no_rows_still_have_columns():
    assert to_json(QueryResult((("a", "BLOB"),), [], truncated=False))["columns"] == [{"name": "a", "type": "BLOB"}]
