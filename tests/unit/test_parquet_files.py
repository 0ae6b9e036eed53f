"""The Parquet files that are written: what other readers need to find in them, and what DuckDB must not find."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trace_dagster.store.parquet import parquet_writer

SCHEMA = pa.schema(
    [
        ("block_number", pa.int64()),
        ("block_timestamp", pa.timestamp("us", tz="UTC")),
        ("log_index", pa.int64()),
        ("address", pa.binary(20)),
        ("topic0", pa.binary(32)),
        ("gas_price", pa.decimal128(38, 0)),
        ("data", pa.large_binary()),
        ("error", pa.large_string()),
        ("success", pa.bool_()),
        ("value_f64", pa.float64()),
    ]
)
ORDER = ("block_number", "log_index")
ROWS = 600
GROUP = 200


def key(number, size=32):
    return sha256(str(number).encode()).digest()[:size]


def rows():
    start = datetime(2025, 11, 24, tzinfo=UTC)
    return pa.Table.from_pylist(
        [
            {
                "block_number": number // 3,
                "block_timestamp": start + timedelta(seconds=number // 3),
                "log_index": number % 3,
                "address": key(number % 7, 20),
                "topic0": key(number) if number % 5 else None,
                "gas_price": Decimal(2**64 + number),
                "data": key(number) * (number % 4),
                "error": None if number % 9 else "reverted",
                "success": number % 9 > 0,
                "value_f64": float(number),
            }
            for number in range(ROWS)
        ],
        schema=SCHEMA,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    with pa.OSFile(str(path), "wb") as sink, parquet_writer(sink, SCHEMA, rows(), ORDER) as writer:
        writer.write_table(rows(), row_group_size=GROUP)
    return path


def query(sql, path):
    return duckdb.connect().execute(sql, [str(path)]).fetchall()


def test_columns_are_numbered_from_one_in_their_stored_order(path):
    ids = [field.metadata[b"PARQUET:field_id"] for field in pq.read_schema(path)]
    assert ids == [b"%d" % number for number in range(1, len(SCHEMA) + 1)]
    found = query("select name, field_id from parquet_schema(?) where num_children is null", path)
    assert found == [(name, number) for number, name in enumerate(SCHEMA.names, 1)]


def test_the_numbers_do_not_change_the_rows_or_their_schema(path):
    assert pq.read_schema(path).equals(SCHEMA)
    assert pq.read_table(path).equals(rows())


def test_types_are_those_that_other_engines_read(path):
    """Spark, Trino and Iceberg read decimals over 64 bits as fixed-length bytes, and timestamps adjusted to UTC.

    None reads unsigned numbers.
    """
    schema = pq.ParquetFile(path).schema
    columns = [schema.column(place) for place in range(len(SCHEMA))]
    found = {
        each.name: (each.physical_type, each.length, str(each.logical_type).partition(", is_")[0]) for each in columns
    }
    utc = "Timestamp(isAdjustedToUTC=true, timeUnit=microseconds"
    assert found == {
        "block_number": ("INT64", 0, "None"),
        "block_timestamp": ("INT64", 0, utc),
        "log_index": ("INT64", 0, "None"),
        "address": ("FIXED_LEN_BYTE_ARRAY", 20, "None"),
        "topic0": ("FIXED_LEN_BYTE_ARRAY", 32, "None"),
        "gas_price": ("FIXED_LEN_BYTE_ARRAY", 16, "Decimal(precision=38, scale=0)"),
        "data": ("BYTE_ARRAY", 0, "None"),
        "error": ("BYTE_ARRAY", 0, "String"),
        "success": ("BOOLEAN", 0, "None"),
        "value_f64": ("DOUBLE", 0, "None"),
    }


def test_duckdb_reads_every_type(path):
    types = dict(query("select column_name, column_type from (describe from read_parquet(?))", path))
    assert types == {
        "block_number": "BIGINT",
        "block_timestamp": "TIMESTAMP WITH TIME ZONE",
        "log_index": "BIGINT",
        "address": "BLOB",
        "topic0": "BLOB",
        "gas_price": "DECIMAL(38,0)",
        "data": "BLOB",
        "error": "VARCHAR",
        "success": "BOOLEAN",
        "value_f64": "DOUBLE",
    }
    assert query("select sum(gas_price), count(topic0), max(address) from read_parquet(?)", path) == [
        (sum(2**64 + number for number in range(ROWS)), ROWS * 4 // 5, max(key(number, 20) for number in range(7)))
    ]


def test_every_row_group_states_its_order_and_every_column_its_statistics_and_page_index(path):
    found = pq.ParquetFile(path).metadata
    assert found.num_row_groups == ROWS // GROUP
    for number in range(found.num_row_groups):
        group = found.row_group(number)
        order = [(SCHEMA.names[each.column_index], each.descending) for each in group.sorting_columns]
        assert order == [(name, False) for name in ORDER]
        for place in range(len(SCHEMA)):
            column = group.column(place)
            assert column.statistics.has_min_max, column.path_in_schema
            assert column.statistics.has_null_count
            assert column.has_column_index
            assert column.has_offset_index


def test_a_file_without_an_order_states_none():
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, SCHEMA, rows()) as writer:
        writer.write_table(rows())
    assert pq.ParquetFile(pa.BufferReader(sink.getvalue())).metadata.row_group(0).sorting_columns == ()


def test_files_have_no_bloom_filter(path):
    found = query(
        "select count(*), count(bloom_filter_offset), count(bloom_filter_length) from parquet_metadata(?)", path
    )
    assert found == [(len(SCHEMA) * ROWS // GROUP, 0, 0)]


@pytest.mark.parametrize(("name", "size"), [("address", 20), ("topic0", 32)])
def test_duckdb_finds_every_value_in_our_files(path, name, size):
    present = [value for value in rows()[name].unique().to_pylist() if value is not None]
    for value in present[:50]:
        assert duckdb.execute(
            f"select count(*) from read_parquet(?) where {name} = ?", [str(path), value]
        ).fetchone() == (rows()[name].to_pylist().count(value),)


@pytest.mark.parametrize("kind", [pa.binary(32), pa.large_binary()], ids=str)
def test_duckdb_still_loses_rows_where_a_binary_column_has_a_bloom_filter(tmp_path, kind):
    """Pin the defect that keeps bloom filters out of the lake."""
    values = [key(number) for number in range(200)]
    path = str(tmp_path / "filtered.parquet")
    pq.write_table(
        pa.table({"hash": pa.array(values, kind)}), path, bloom_filter_options={"hash": {"ndv": 200, "fpp": 0.01}}
    )
    assert duckdb.execute("select count(bloom_filter_offset) from parquet_metadata(?)", [path]).fetchone() == (1,)
    found = [
        duckdb.execute("select count(*) from read_parquet(?) where hash = ?", [path, value]).fetchone()[0]
        for value in values
    ]
    assert sum(found) < len(values), (
        f"DuckDB {duckdb.__version__} finds all rows of binary columns that have a bloom filter. Reconsider ADR 0017:"
        " bloom filters in layouts could replace the summaries in the registry, once no older DuckDB reads the lake."
    )
