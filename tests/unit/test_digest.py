"""The content digest depends on the rows and not on their file layout. Its golden value only changes with an ADR."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.digest import ContentDigest

SCHEMA = pa.schema(
    [
        ("block_number", pa.uint32()),
        ("hash", pa.large_binary()),
        ("price", pa.uint64()),
        ("ok", pa.bool_()),
        ("text", pa.large_string()),
        ("ratio", pa.float64()),
    ]
)
ROWS = [
    {"block_number": 1, "hash": b"\x01" * 32, "price": None, "ok": True, "text": "é", "ratio": 0.5},
    {"block_number": 2, "hash": b"", "price": 2**64 - 1, "ok": False, "text": None, "ratio": -1e300},
    {"block_number": 2**32 - 1, "hash": None, "price": 0, "ok": None, "text": "", "ratio": None},
]
GOLDEN = "d0f0fcc4b670cdda14fa05b970515ad63d46b01b9b2a3aa5516d574195e12778"


def digest(rows, cuts=()):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    found = ContentDigest(SCHEMA)
    edges = [0, *sorted(cuts), len(rows)]
    for start, end in zip(edges, edges[1:], strict=False):
        found.update(table.slice(start, end - start))
    return found.hexdigest()


def test_golden_vector():
    assert digest(ROWS) == GOLDEN


@given(st.lists(st.sampled_from(ROWS), max_size=30), st.data())
def test_batch_borders_do_not_count(rows, data):
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=4))
    assert digest(rows, cuts) == digest(rows)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("block_number", 7),
        ("hash", b"\x01" * 31),
        ("price", 0),
        ("ok", None),
        ("text", None),
        ("ratio", 0.25),
    ],
)
def test_every_value_counts(column, value):
    assert digest([{**ROWS[0], column: value}, *ROWS[1:]]) != digest(ROWS)


def test_order_and_number_of_rows_count():
    assert len({digest(ROWS), digest(ROWS[::-1]), digest(ROWS[:2]), digest([])}) == 4


def test_null_and_empty_differ_and_bytes_do_not_slide_between_rows():
    first = digest([{**ROWS[0], "hash": b"ab"}, {**ROWS[0], "hash": b"c"}])
    second = digest([{**ROWS[0], "hash": b"a"}, {**ROWS[0], "hash": b"bc"}])
    assert first != second


def test_another_schema_is_refused():
    with pytest.raises(ValueError, match="was fed"):
        ContentDigest(SCHEMA).update(pa.table({"block_number": [1]}))
