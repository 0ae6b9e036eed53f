"""The content digest depends on the rows and not on their file layout. Its golden value only changes with an ADR."""

import hashlib
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trace_dagster.digest import ContentDigest

SCHEMA = pa.schema(
    [
        ("block_number", pa.int64()),
        ("block_timestamp", pa.timestamp("us", tz="UTC")),
        ("hash", pa.binary(32)),
        ("address", pa.binary(20)),
        ("price", pa.decimal128(38, 0)),
        ("ok", pa.bool_()),
        ("input", pa.large_binary()),
        ("text", pa.large_string()),
        ("ratio", pa.float64()),
    ]
)
FIRST = {
    "block_number": 1,
    "block_timestamp": datetime(2015, 7, 30, 15, 26, 13, tzinfo=UTC),
    "hash": b"\x01" * 32,
    "address": b"\x02" * 20,
    "price": Decimal(2**64),
    "ok": True,
    "input": b"\x00\xff",
    "text": "é",
    "ratio": 0.5,
}
ROWS = [
    FIRST,
    dict.fromkeys(SCHEMA.names),
    {
        "block_number": -(2**63),
        "block_timestamp": datetime(2262, 4, 11, 23, 47, 16, 854775, tzinfo=UTC),
        "hash": None,
        "address": bytes(20),
        "price": Decimal(-1),
        "ok": False,
        "input": b"",
        "text": "",
        "ratio": -1e300,
    },
    {**FIRST, "hash": bytes(32), "address": None, "price": Decimal(10**38 - 1), "ok": None, "input": None},
    {**FIRST, "block_timestamp": None, "price": None, "text": None, "ratio": float("nan")},
]
GOLDEN = "6a1c25307e293396f1c12db8aabf2212b5c0ac048e5b63aeb4bcc0ac573bb1f3"
GOLDEN_WITHOUT_ROWS = "dc85a0c197697e17a604d94398ed0d2e48a68eaaecf84ea274e54514382c2aa6"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODE = {
    pa.int64(): lambda value: struct.pack("<q", value),
    pa.float64(): lambda value: struct.pack("<d", value),
    pa.timestamp("us", tz="UTC"): lambda value: struct.pack("<q", (value - _EPOCH) // timedelta(microseconds=1)),
    pa.decimal128(38, 0): lambda value: int(value).to_bytes(16, "little", signed=True),
    pa.binary(20): bytes,
    pa.binary(32): bytes,
}

values = st.fixed_dictionaries(
    {
        "block_number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "block_timestamp": st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
        "hash": st.none() | st.binary(min_size=32, max_size=32),
        "address": st.none() | st.binary(min_size=20, max_size=20),
        "price": st.none() | st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
        "ok": st.none() | st.booleans(),
        "input": st.none() | st.binary(max_size=40),
        "text": st.none() | st.text(max_size=10),
        "ratio": st.none() | st.floats(),
    }
)
several = st.lists(st.sampled_from(ROWS) | values, max_size=40)


def as_table(rows):
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def digest(rows, cuts=()):
    """Return the digest of rows that are passed as slices of one table, so that every slice has another offset."""
    table = as_table(rows)
    found = ContentDigest(SCHEMA)
    edges = [0, *sorted(cuts), len(rows)]
    for start, end in zip(edges, edges[1:], strict=False):
        found.update(table.slice(start, end - start))
    return found.hexdigest()


def by_the_book(rows):
    """Return what ADR 0016 says, computed without Arrow's buffers."""
    text = b"trace content digest 2\n" + struct.pack("<Q", len(rows))
    for field in SCHEMA:
        column = [row[field.name] for row in rows]
        there = [value for value in column if value is not None]
        values = sha256(bits([value is not None for value in column])) + values_digest(field.type, there)
        label = f"{field.name}:{field.type}".encode()
        text += struct.pack("<I", len(label)) + label + sha256(values)
    return sha256(text).hex()


def values_digest(kind, there):
    if kind == pa.bool_():
        return sha256(bits(there))
    if kind in _ENCODE:
        return sha256(b"".join(map(_ENCODE[kind], there)))
    encoded = [value.encode() if isinstance(value, str) else value for value in there]
    lengths = b"".join(struct.pack("<I", len(value)) for value in encoded)
    return sha256(sha256(lengths) + sha256(b"".join(encoded)))


def bits(flags):
    number = sum(flag << place for place, flag in enumerate(flags))
    return number.to_bytes(-(-len(flags) // 8), "little")


def sha256(data):
    return hashlib.sha256(data).digest()


def test_golden_vector():
    assert (digest(ROWS), digest([])) == (GOLDEN, GOLDEN_WITHOUT_ROWS)


@given(several, st.data())
@example(ROWS * 8, None)
def test_the_digest_is_that_of_the_adr_wherever_tables_are_cut(rows, data):
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=6)) if data else range(len(rows))
    assert digest(rows, cuts) == digest(rows) == by_the_book(rows)


@given(several, st.integers(1, 40), st.integers(1, 3), st.booleans())
def test_files_do_not_count(rows, group, chunk, dictionary):
    """Rows that were written with other row groups and encodings, and are read in other batches, have one digest."""
    sink = pa.BufferOutputStream()
    pq.write_table(as_table(rows), sink, row_group_size=group, use_dictionary=dictionary)
    found = ContentDigest(SCHEMA)
    for batch in pq.ParquetFile(pa.BufferReader(sink.getvalue())).iter_batches(batch_size=chunk):
        found.update(pa.Table.from_batches([batch]))
    assert found.hexdigest() == digest(rows)


@given(several)
def test_bytes_below_a_null_do_not_count(rows):
    """Arrow may keep any bytes where a value is null."""
    columns = [pa.array([FIRST[field.name] if row[field.name] is None else row[field.name] for row in rows], field.type)
               for field in SCHEMA]  # fmt: skip
    nulls = [pa.array([row[name] is None for row in rows], pa.bool_()) for name in SCHEMA.names]
    hidden = [_with_nulls(column, mask) for column, mask in zip(columns, nulls, strict=True)]
    found = ContentDigest(SCHEMA)
    found.update(pa.Table.from_arrays(hidden, schema=SCHEMA))
    assert found.hexdigest() == digest(rows)


def _with_nulls(column, mask):
    flags = pa.array([not null for null in mask.to_pylist()], pa.bool_()).buffers()[1]
    return pa.Array.from_buffers(column.type, len(column), [flags, *column.buffers()[1:]])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("block_number", 7),
        ("block_timestamp", datetime(2015, 7, 30, 15, 26, 13, 1, tzinfo=UTC)),
        ("hash", b"\x01" * 31 + b"\x02"),
        ("address", None),
        ("price", Decimal(2**64 + 1)),
        ("price", Decimal(0)),
        ("ok", None),
        ("input", b"\x00\xff\x00"),
        ("text", None),
        ("ratio", 0.25),
        *((name, None) for name in SCHEMA.names),
    ],
)
def test_every_value_counts(column, value):
    assert digest([{**ROWS[0], column: value}, *ROWS[1:]]) != digest(ROWS)


@pytest.mark.parametrize("value", [0, False, b"", "", Decimal(0), datetime(1970, 1, 1, tzinfo=UTC), bytes(32)])
def test_null_is_no_value(value):
    (name, *_) = [each.name for each in SCHEMA if _fits(value, each.type)]
    assert digest([{**FIRST, name: value}]) != digest([{**FIRST, name: None}])


def _fits(value, kind):
    return type(pa.scalar(FIRST[SCHEMA.names[SCHEMA.types.index(kind)]], kind).as_py()) is type(value) and (
        kind != pa.binary(20) and (kind != pa.binary(32) or len(value) == 32)
    )


def test_order_and_number_of_rows_count():
    assert len({digest(ROWS), digest(ROWS[::-1]), digest(ROWS[:2]), digest([])}) == 4


@pytest.mark.parametrize("name", ["input", "text"])
def test_bytes_do_not_slide_between_rows(name):
    def cut(*parts):
        return [{**FIRST, name: part.encode() if name == "input" else part} for part in parts]

    assert len({digest(cut("ab", "c")), digest(cut("a", "bc")), digest(cut("abc", "")), digest(cut("", "abc"))}) == 4


def test_nulls_do_not_slide_between_rows():
    first, second = {**FIRST, "hash": None}, FIRST
    assert digest([first, second, second]) != digest([second, first, second]) != digest([second, second, first])


@pytest.mark.parametrize(
    "field",
    [pa.field("hash", pa.binary(20)), pa.field("price", pa.decimal128(20, 0)), pa.field("t", pa.timestamp("us"))],
)
def test_names_and_types_count(field):
    one, other = pa.schema([field]), pa.schema([field.with_name("another")])
    third = pa.schema([field.with_type(pa.int64())])
    assert len({ContentDigest(schema).hexdigest() for schema in (one, other, third)}) == 3


def test_another_schema_is_refused():
    table = as_table(ROWS)
    for other in (
        pa.table({"block_number": [1]}),
        table.set_column(2, "hash", table["hash"].dictionary_encode()),
        table.set_column(2, "hash", table["hash"].cast(pa.binary())),
        table.select(SCHEMA.names[::-1]),
    ):
        with pytest.raises(ValueError, match="was fed"):
            ContentDigest(SCHEMA).update(other)


def test_metadata_of_a_schema_does_not_count():
    found = ContentDigest(SCHEMA)
    numbered = pa.schema([field.with_metadata({"PARQUET:field_id": "7"}) for field in SCHEMA])
    found.update(as_table(ROWS).cast(numbered))
    assert found.hexdigest() == digest(ROWS)


@pytest.mark.parametrize(
    "kind",
    [
        pa.dictionary(pa.int32(), pa.large_string()),
        pa.large_list(pa.large_string()),
        pa.binary(),
        pa.string(),
        pa.string_view(),
        pa.null(),
        pa.struct([("a", pa.int64())]),
    ],
    ids=str,
)
def test_types_that_stored_rows_never_have_are_refused(kind):
    with pytest.raises(ValueError, match="column odd has a type without a content digest"):
        ContentDigest(pa.schema([("odd", kind)]))
