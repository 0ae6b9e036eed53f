"""Rows of a template are stored with types that other engines read, whatever DuckDB gives."""

import duckdb
import pyarrow as pa

from trace_dagster.analytics.derive import _stored
from trace_dagster.digest import ContentDigest


def test_types_of_duckdb_become_those_of_streams():
    answer = duckdb.execute(
        "select 1::uinteger as u32, 18446744073709551615::ubigint as u64, 'ab' as name, 'ab'::blob as holder,"
        " 5::hugeint as total, 1.5::double as share, timestamptz '2026-11-21 08:09:10+00' as at"
    )
    stored = _stored(answer.to_arrow_table())
    kinds = {field.name: field.type for field in stored.schema}
    assert kinds == {
        "u32": pa.int64(),
        "u64": pa.decimal128(20, 0),
        "name": pa.large_string(),
        "holder": pa.large_binary(),
        "total": kinds["total"],
        "share": pa.float64(),
        "at": kinds["at"],
    }
    assert stored["u64"].to_pylist() == [2**64 - 1]
    assert not any(pa.types.is_unsigned_integer(kind) for kind in kinds.values())
    ContentDigest(stored.schema).update(stored)
