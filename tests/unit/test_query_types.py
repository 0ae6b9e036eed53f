"""The types that a query session states for a table without files are those that DuckDB reads from its files."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trace_dagster.datasets.catalogue import catalogue
from trace_dagster.datasets.lake_types import arrow_types
from trace_dagster.query.relations import duckdb_type


def described(path):
    rows = duckdb.execute("describe select * from read_parquet(?)", [str(path)]).fetchall()
    return {name: kind for name, kind, *_ in rows}


@pytest.mark.parametrize("name", catalogue())
def test_columns_of_a_dataset(tmp_path, name):
    schema = catalogue()[name].schema(list(catalogue()[name].all_columns))
    pq.write_table(schema.empty_table(), tmp_path / "one.parquet")
    assert described(tmp_path / "one.parquet") == {each.name: duckdb_type(str(each.type)) for each in schema}


def test_every_type_that_a_stored_or_derived_column_may_have(tmp_path):
    kinds = [*arrow_types().values(), pa.decimal128(18, 3), pa.int32(), pa.date32(), pa.timestamp("us"), pa.string()]
    schema = pa.schema([(f"c{place}", kind) for place, kind in enumerate(kinds)])
    pq.write_table(schema.empty_table(), tmp_path / "one.parquet")
    assert described(tmp_path / "one.parquet") == {each.name: duckdb_type(str(each.type)) for each in schema}


def test_values_of_the_lake_are_whole_in_sql(tmp_path):
    """A fee and a hash come back as they were written, and binary values sort as their numbers."""
    numbers = [0, 255, 256, 2**255]
    table = pa.table(
        {
            "fee": pa.array([1 << 64, None, 7, 10**38 - 1], pa.decimal128(38, 0)),
            "value": pa.array([number.to_bytes(32, "big") for number in numbers], pa.binary(32)),
        }
    )
    pq.write_table(table, tmp_path / "one.parquet")
    rows = duckdb.execute("select fee, value from read_parquet(?) order by value", [str(tmp_path / "one.parquet")])
    assert [(fee if fee is None else int(fee), int.from_bytes(value, "big")) for fee, value in rows.fetchall()] == list(
        zip([1 << 64, None, 7, 10**38 - 1], numbers, strict=True)
    )
