"""Filters select the same of hot rows as of a Parquet file, for every type that hot rows have."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.session_process import session_process
from tests.support.sql_corpora import shape_of
from trace_dagster.query.protocol import Relation
from trace_dagster.query.session import QuerySession
from trace_dagster.store.access import S3Access

pytestmark = [pytest.mark.integration]

ROWS, QUERIES = 300, 400
NOWHERE = S3Access("none", "a", "b", "http://127.0.0.1:9")
START = datetime(2024, 1, 1, tzinfo=UTC)
BYTES = (b"\x00", b"\x01", b"\xff")
VALUES = {
    "number": ["0", "1", "4611686018427387904", "-1", "7.5", "33::hugeint"],
    "row": ["5", "150", "299"],
    "time": ["'2024-01-01 00:00:04'", "timestamptz '2024-01-01 00:00:08.4+00'", "date '2024-01-01'"],
    "address": [f"unhex('{(each * 20).hex()}')" for each in BYTES],
    "hash": [f"unhex('{(each * 31 + bytes([last])).hex()}')" for each in BYTES for last in (0, 3)],
    "fee": ["0", "1", "18446744073709551616", "1" + 37 * "0"],
    "data": ["''::blob", "'\\x00'::blob", "'a'::blob", f"unhex('{'ff' * 40}')"],
    "text": ["''", "'9'", "'b'"],
    "real": ["0", "1.5", "-0.0", "'nan'::double", "'inf'::double"],
    "flag": ["true", "false"],
}
"""Constants by column; there is a column of every type that hot rows have."""


def table(source: random.Random) -> pa.Table:
    def some(make, kind):
        return pa.array([make(n) if source.random() > 0.15 else None for n in range(ROWS)], kind)

    pick = source.choice
    return pa.table(
        {
            "number": some(lambda _: pick([0, 1, 5, 2**62]), pa.int64()),
            "row": pa.array(range(ROWS), pa.int64()),
            "time": some(lambda n: START + timedelta(microseconds=n // 3 * 400_000), pa.timestamp("us", "UTC")),
            "address": some(lambda _: pick(BYTES) * 20, pa.binary(20)),
            "hash": some(lambda n: pick(BYTES) * 31 + bytes([n % 4]), pa.binary(32)),
            "fee": some(lambda _: Decimal(pick([0, 1, 5, 2**64, 10**37])), pa.decimal128(38, 0)),
            "data": some(lambda _: pick([b"", b"\x00", b"a", b"ab", b"\xff" * 40]), pa.large_binary()),
            "text": some(lambda _: pick(["", "0", "10", "9", "a"]), pa.large_string()),
            "real": some(lambda _: pick([0.0, 1.5, 1e30]), pa.float64()),
            "flag": some(lambda _: pick([True, False]), pa.bool_()),
        }
    )


def atom(source: random.Random) -> str:
    column = source.choice([*VALUES])
    one, other = source.choice(VALUES[column]), source.choice(VALUES[column])
    comparison = source.choice(["=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from"])
    return source.choice(
        [
            f"{column} {comparison} {one}",
            f"{column} in ({one}, {other})",
            f"{column} not in ({one}, {other}, null)",
            f"{column} in ({one}, null)",
            f"{column} is null",
            f"{column} is not null",
            f"{column} between {one} and {other}",
            f"not ({column} > {one} or {column} is null)",
            f"coalesce({column}, {one}) = {other}",
        ]
    )


def condition(source: random.Random, depth: int = 0) -> str:
    if depth > 2 or source.random() < 0.4:
        return atom(source)
    joined = f"({condition(source, depth + 1)} {source.choice(['and', 'or'])} {condition(source, depth + 1)})"
    return joined if source.random() < 0.8 else f"not {joined}"


def query(source: random.Random) -> str:
    where = condition(source)
    return source.choice(
        [
            f"select count(*), sum(number), min(hash), max(fee) from logs where {where}",
            f"select * from logs where {where} order by row",
            f"select * from logs where {where} order by number desc nulls last, fee, address, row limit 3",
            f"select {source.choice([*VALUES])} as k, count(*) from logs where {where} group by 1 order by all",
            f"select a.row, b.row from logs a join logs b using (hash, number) where a.{at_least(source)} order by all",
            f"select row from logs where hash = (select max(hash) from logs where {at_least(source)}) order by row",
        ]
    )


def at_least(source: random.Random) -> str:
    column = source.choice([*VALUES])
    return f"{column} >= {source.choice(VALUES[column])}"


def test_filters_on_hot_rows_select_what_they_select_in_a_file(tmp_path):
    source = random.Random(7)
    rows = table(source)
    pq.write_table(rows, tmp_path / "logs.parquet")
    logs = Relation("logs", shape_of(rows), (), hot=pa.concat_tables([rows.slice(0, 100), rows.slice(100)]))
    with duckdb.connect() as plain, session_process(NOWHERE) as run:
        plain.execute("set TimeZone = 'UTC'")
        plain.read_parquet(str(tmp_path / "logs.parquet")).create_view("logs")
        queries = [query(source) for _ in range(QUERIES)]
        for sql, found in zip(queries, run(queries, [logs]), strict=True):
            assert found == plain.execute(sql).fetchall(), sql


def test_hot_rows_have_no_name_and_all_columns_of_their_relation():
    rows = table(random.Random(1))
    shape = shape_of(rows)
    sent = rows.select(["row", "address"])
    with QuerySession.over([Relation("chain_1.logs", shape, (), hot=sent)], NOWHERE) as session:
        session.select("select database_name, schema_name, view_name from duckdb_views() where not internal")
        assert session.fetch(10) == [("memory", "chain_1", "logs")]
        session.select("select table_name from duckdb_tables()")
        assert session.fetch(10) == []
        assert list(session.select("select * from chain_1.logs")) == shape
        session.select("select count(address), count(hash), count(*) from chain_1.logs")
        assert session.fetch(1) == [(ROWS - rows["address"].null_count, 0, ROWS)]
