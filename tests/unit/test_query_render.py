"""Query results as JSON: no value is rounded, and every value has a representation."""

import datetime
import json
from decimal import Decimal

import pytest

from trace_dagster.query.render import value


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (True, True),
        (2**53, 2**53),
        (2**53 + 1, str(2**53 + 1)),
        (-(2**53) - 1, str(-(2**53) - 1)),
        (b"\x00\xff", "0x00ff"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("1.10"), "1.10"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        ([2**60, None, b"\x01"], [str(2**60), None, "0x01"]),
        ({"a": [1]}, {"a": [1]}),
    ],
)
def test_values(given, expected):
    assert value(given) == expected
    json.dumps(value(given), allow_nan=False)


@pytest.mark.parametrize(
    ("key", "shown"), [(b"\xab", "0xab"), (5, "5"), ("k", "k"), (2**60, str(2**60)), (True, "true")]
)
def test_the_key_of_a_map_is_the_text_of_its_value(key, shown):
    assert value({key: 1}) == {shown: 1}
