"""Answers as Arrow, CSV and Parquet: equal to DuckDB's own, flat in memory, and never whole after an error."""

import csv
import io
import json
import os
import re
import threading
import time

import duckdb
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.query_processes import await_end, child_of
from trace_dagster.errors import Cancelled, Corrupt, InvalidInput, TooLate, TraceError, Unavailable
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.query.protocol import SNAPSHOT_KEY, QueryLimits, Relation
from trace_dagster.query.runner import QueryRunner
from trace_dagster.store.access import S3Access

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOWHERE = S3Access("none", "key", "secret", "http://127.0.0.1:1")
ROWS = 10_000_000 if os.environ.get("TRACE_FAULTS_FULL") else 1_000_000
MANY = "select range as a, hash(range) as h, range::varchar || repeat('x', 20) as t from range({})"
ENDLESS = "select range as a, repeat('x', 100) as t from range(1000000000000)"
TYPES = [
    ("null::varchar", "", None),
    ("''", '""', None),
    ("'plain'", "plain", None),
    ("'a,b'", '"a,b"', None),
    ("""'say "x"' || chr(10) || 'y'""", '"say ""x""\ny"', None),
    ("'=1+1'", "=1+1", None),
    ("true", "true", None),
    ("(-128)::tinyint", "-128", None),
    ("9007199254740993", "9007199254740993", None),
    ("18446744073709551615::ubigint", "18446744073709551615", None),
    ("99999999999999999999999999999999999999::hugeint", "9" * 38, "decimal(38, 0)"),
    ("340282366920938463463374607431768211455::uhugeint", str(2**128 - 1), "varchar"),
    (f"'{2**255}'::bignum", str(2**255), "varchar"),
    ("1.50::decimal(38, 2)", "1.50", None),
    ("0.00000001::decimal(18, 8)", "0.00000001", None),
    ("0.1::double", "0.1", None),
    ("'-inf'::double", "-inf", None),
    ("'\\xAB\\x00'::blob", "0xab00", None),
    ("''::blob", "0x", None),
    ("date '2026-11-21'", "2026-11-21", None),
    ("time '08:09:10.5'", "08:09:10.5", None),
    ("'08:09:10+02'::timetz", "08:09:10+02", "varchar"),
    ("timestamp '2026-11-21 08:09:10.5'", "2026-11-21T08:09:10.5", None),
    ("timestamptz '2026-11-21 08:09:10.5+02'", "2026-11-21T06:09:10.5+00:00", None),
    ("timestamp_ns '2026-11-21 08:09:10.123456789'", "2026-11-21T08:09:10.123456789", None),
    ("interval '1 month 2 days'", "1 month 2 days", "varchar"),
    ("'0101'::bit", "0101", "varchar"),
    ("'c0ffee00-0000-4000-8000-000000000000'::uuid", "c0ffee00-0000-4000-8000-000000000000", "varchar"),
    ("""'{"a": 1}'::json""", '"{""a"": 1}"', "varchar"),
    ("'a'::enum('a', 'b')", "a", "varchar"),
    ("union_value(a := 5)", "5", "varchar"),
    ("[1, null]", '"[1,null]"', None),
    ("[]::varchar[]", "[]", None),
    ("['5'::bignum]", '"[""5""]"', "varchar[]"),
    ("[1, 2]::integer[2]", '"[1,2]"', None),
    ("{'a': 9007199254740993, 'b': '\\xAB'::blob}", '"{""a"":""9007199254740993"",""b"":""0xab""}"', None),
    (
        "{'a b': '5'::bignum, 'c': [1.5]}",
        '"{""a b"":""5"",""c"":[""1.5""]}"',
        'struct("a b" varchar, c decimal(2, 1)[])',
    ),
    ("row(1, '5'::bignum)", '"[1,""5""]"', "struct(v1 integer, v2 varchar)"),
    ("map {'k': 'inf'::double}", '"{""k"":""inf""}"', None),
    ("map {1: '5'::bignum}", '"{""1"":""5""}"', "map(integer, varchar)"),
    ("null::struct(a integer)", "", None),
    ("[{'a': null::integer[]}]", '"[{""a"":null}]"', None),
    ("null", "", None),
]
"""Expressions, their fields of CSV, and the types that Arrow and Parquet have instead of their own."""


@pytest.fixture
def runner():
    with QueryRunner(QueryLimits(timeout_seconds=120.0), refill=False) as found:
        yield found


def streamed(runner, sql, form, **given):
    with runner.stream(sql, [], NOWHERE, form, **given) as stream:
        return b"".join(stream)


def arrow(data):
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def typed(names, expressions):
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.sql(f"select {', '.join(expressions)}").to_arrow_table().rename_columns(names)


ALL_TYPES = "select " + ", ".join(f"{expression} as c{place}" for place, (expression, _, _) in enumerate(TYPES))


@pytest.fixture(scope="module")
def expected():
    shown = [expression if kind is None else f"({expression})::{kind}" for expression, _, kind in TYPES]
    return typed([f"c{place}" for place in range(len(TYPES))], shown)


def test_arrow_has_every_type_as_duckdb_does(runner, expected):
    data = streamed(runner, ALL_TYPES, "arrow")
    found = arrow(data)
    assert found.to_pylist() == expected.to_pylist()
    assert [str(field.type) for field in found.schema] == [str(field.type) for field in expected.schema]
    assert found.to_pandas().shape == (1, len(TYPES))
    assert pl.read_ipc_stream(io.BytesIO(data)).equals(pl.from_arrow(expected))


def test_parquet_has_every_type_as_arrow_does(runner, expected, tmp_path):
    data = streamed(runner, ALL_TYPES, "parquet")
    found = pq.read_table(io.BytesIO(data))
    assert found.to_pylist() == expected.to_pylist()
    (tmp_path / "all.parquet").write_bytes(data)
    assert duckdb.sql(f"select count(*) from '{tmp_path}/all.parquet'").fetchone() == (1,)
    assert pl.read_parquet(tmp_path / "all.parquet").shape == (1, len(TYPES))


def test_csv_has_every_type_as_text(runner):
    head, line = streamed(runner, ALL_TYPES, "csv").decode().split("\r\n", 1)
    assert head == ",".join(f"c{place}" for place in range(len(TYPES)))
    assert line == ",".join(text for _, text, _ in TYPES) + "\r\n"


def test_nested_values_are_the_same_in_csv_and_json(runner):
    nested = [
        place
        for place, (_, text, _) in enumerate(TYPES)
        if text[:2] in ('"[', '"{') and "::json" not in TYPES[place][0]
    ]
    sql = "select " + ", ".join(TYPES[place][0] for place in nested)
    _, row = csv.reader(io.StringIO(streamed(runner, sql, "csv").decode(), newline=""))
    assert [json.loads(text) for text in row] == list(runner.query(sql, [], NOWHERE).rows[0])


@pytest.mark.parametrize(
    ("sql", "names", "rows"),
    [
        ("select 1 as a, 2 as a, 3 as a_1", ["a", "a_2", "a_1"], [[1, 2, 3]]),
        ("select 1 as a where false", ["a"], []),
        ("explain select 1", ["plan"], None),
        ("explain analyze select 1", ["plan"], None),
        ("describe select 1 as a", None, [["a", "INTEGER", "YES", None, None, None]]),
        ("show tables", ["name"], []),
        ("pivot (values ('x', 1), ('y', 2)) t(k, v) on k using max(v)", ["x", "y"], [[1, 2]]),
        ("select * from range(5) order by range desc limit 2; -- the last ones", ["range"], [[4], [3]]),
    ],
)
def test_every_statement_streams_in_every_format(runner, sql, names, rows):
    tables = [arrow(streamed(runner, sql, "arrow")), pq.read_table(io.BytesIO(streamed(runner, sql, "parquet")))]
    assert tables[0].schema == tables[1].schema
    assert rows is None or tables[0].equals(tables[1])
    assert names is None or tables[0].column_names == names
    assert rows is None or [list(row.values()) for row in tables[0].to_pylist()] == rows
    lines = list(csv.reader(io.StringIO(streamed(runner, sql, "csv").decode(), newline="")))
    assert len(lines) == 1 + tables[0].num_rows


def test_csv_has_thousands_of_columns_and_refuses_many_lists_in_each_other(runner):
    numbers = ",".join(f"{n} as c{n}" for n in range(2000))
    _, line = streamed(runner, f"select {numbers}", "csv").decode().split()
    assert line == ",".join(map(str, range(2000)))
    pivot = "pivot (select range % 300 as q from range(900)) on q using count(*)"
    assert streamed(runner, pivot, "csv").decode().split()[1] == ",".join(["3"] * 300)
    assert streamed(runner, f"select {'[' * 10}1{']' * 10} as a", "csv").decode() == f"a\r\n{'[' * 10}1{']' * 10}\r\n"
    with pytest.raises(InvalidInput, match="at most 10 levels"):
        streamed(runner, f"select {'[' * 11}1{']' * 11}", "csv")


def test_csv_has_times_that_iso_8601_has_not_as_duckdb_writes_them(runner):
    times = {
        "to_timestamp(-99999999999)": "1200-02-15 (BC) 14:13:21+00",
        "timestamp '0044-03-15 (BC) 10:00:00'": "0044-03-15 (BC) 10:00:00",
        "timestamptz 'infinity'": "infinity",
        "timestamp '-infinity'": "-infinity",
        "to_timestamp(1700000000000)": "55840-11-08T22:13:20+00:00",
        "'10:11:12.123456789'::time_ns": "10:11:12.123456789",
    }
    assert streamed(runner, f"select {', '.join(times)}", "csv").decode().splitlines()[1] == ",".join(times.values())
    assert arrow(streamed(runner, "select '10:11:12.123456789'::time_ns as a", "arrow"))["a"].to_pylist() == [
        "10:11:12.123456789"
    ]


@pytest.mark.parametrize(
    "value",
    ["date 'infinity'", "timestamp '-infinity'", "timestamptz 'infinity'", "map {date 'infinity': 1}",
     "timestamp_ns '2024-01-01 00:00:00.123456789'", "['10:11:12.123456789'::time_ns]",
     "map {timestamp_ns '2024-01-01 00:00:00.123456789': 1}"],
)  # fmt: skip
def test_a_time_that_rows_of_json_would_change_is_an_error(runner, value):
    with pytest.raises(InvalidInput, match="cast it to VARCHAR"):
        runner.query(f"select {value}", [], NOWHERE)
    assert runner.query(f"select cast({value} as varchar)", [], NOWHERE).rows
    assert [list(row) for row in runner.query("select null::timestamp_ns", [], NOWHERE).rows] == [[None]]


def test_a_value_that_arrow_has_not_is_an_error_and_csv_shows_it(runner):
    sql = "select 170141183460469231731687303715884105727::hugeint as x"
    with pytest.raises(InvalidInput, match="cast it to VARCHAR"):
        streamed(runner, sql, "arrow")
    assert streamed(runner, sql, "csv") == b"x\r\n170141183460469231731687303715884105727\r\n"


def test_the_header_is_in_the_metadata(runner):
    header = {"heads": [], "relations": [{"name": "é"}]}
    for form, read in (("arrow", arrow), ("parquet", lambda data: pq.read_table(io.BytesIO(data)))):
        found = read(streamed(runner, "select 1 as a", form, header=lambda: header))
        assert json.loads(found.schema.metadata[SNAPSHOT_KEY.encode()]) == header


@pytest.mark.parametrize("form", ["arrow", "csv", "parquet"])
def test_many_rows_take_little_memory(runner, form):
    parent = psutil.Process()
    begun = time.monotonic()
    with runner.stream(MANY.format(ROWS), [], NOWHERE, form) as stream:
        seconds = time.monotonic() - begun
        child = child_of(stream)
        before = parent.memory_info().rss
        rows = size = most = 0
        for data in stream:
            assert len(data) <= 1 << 20
            size += len(data)
            rows, last = stream.rows, rows
            if rows != last and psutil.pid_exists(child.pid):
                most = max(most, child.memory_info().rss)
        held = parent.memory_info().rss - before
    print(
        f"{form}: {ROWS} rows, {size >> 20} MiB, first after {seconds:.2f} s,"
        f" child {most >> 20} MiB, parent +{held >> 20} MiB"
    )
    assert (rows, stream.bytes) == (ROWS, size)
    assert most < 400 << 20
    assert held < 32 << 20


def test_a_query_imports_nothing_of_size(runner):
    """An import of pandas, which DuckDB tries for a parameter, costs each query half a second."""
    with runner.stream("select ? + range as a, repeat('x', 100) as t from range(1000000000)", [], NOWHERE, "arrow",
                       parameters=[1]) as stream:  # fmt: skip
        next(iter(stream))
        loaded = {entry.path for entry in child_of(stream).memory_maps()}
    assert any("duckdb" in path for path in loaded)
    assert not [path for path in loaded for name in ("pandas", "polars", "numba", "scipy") if f"/{name}/" in path]


def test_a_slow_reader_stops_the_query(runner):
    with runner.stream(ENDLESS, [], NOWHERE, "arrow") as stream:
        child = child_of(stream)
        time.sleep(2)
        used = sum(child.cpu_times()[:2])
        time.sleep(2)
        assert sum(child.cpu_times()[:2]) - used < 0.2
        assert child.memory_info().rss < 400 << 20
        found = iter(stream)
        for _ in range(50):
            next(found)
    await_end([child.pid])


def broken(stream, error, match=None):
    """Read a stream, which must end with this error, and return its bytes."""
    data, told = broken_by(stream, error)
    assert match is None or re.search(match, told), told
    return data


def broken_by(stream, error):
    """Read a stream, which must end with this error; return its bytes and the error's text."""
    data = []
    with pytest.raises(error) as caught:
        data.extend(stream)
    return b"".join(data), str(caught.value)


@pytest.mark.parametrize("form", ["arrow", "csv", "parquet"])
def test_an_error_midway_is_raised_and_nothing_ends_the_bytes(runner, form):
    sql = "select case when range = 900000 then 'x' else '1' end::integer as a, hash(range) as h from range(1000000)"
    for _ in range(3):  # once in many runs of a busy machine DuckDB loses the reason; the error says to run it again
        with runner.stream(sql, [], NOWHERE, form) as stream:
            data, error = broken_by(stream, InvalidInput)
        if "DuckDB lost the reason" not in error:
            break
    assert "Could not convert" in error
    assert data
    if form == "parquet":
        with pytest.raises(pa.ArrowInvalid):
            pq.read_table(io.BytesIO(data))
    if form == "arrow":
        assert not data.endswith(b"\xff\xff\xff\xff\x00\x00\x00\x00")


def test_a_killed_process_breaks_the_stream(runner):
    with runner.stream(ENDLESS, [], NOWHERE, "csv") as stream:
        child_of(stream).kill()
        broken(stream, InvalidInput, "memory")


def test_the_deadline_breaks_the_stream():
    with QueryRunner(QueryLimits(stream_seconds=8.0), refill=False) as runner:
        begun = time.monotonic()
        with pytest.raises(TooLate), runner.stream(ENDLESS, [], NOWHERE, "csv") as stream:
            for _ in stream:
                pass
        assert time.monotonic() - begun < 60


def test_a_cancelled_stream_ends(runner):
    cancellation = Cancellation()
    with runner.stream(ENDLESS, [], NOWHERE, "csv", cancellation=cancellation) as stream:
        threading.Timer(0.5, cancellation.ask).start()
        broken(stream, Cancelled)
    with pytest.raises(Cancelled), runner.stream("select 1", [], NOWHERE, "csv", cancellation=cancellation):
        pass


def test_a_check_that_fails_late_breaks_the_stream(runner):
    def check():
        time.sleep(1)
        raise Corrupt("an object is altered")

    with runner.stream("select 1 as a", [], NOWHERE, "csv", meanwhile=check) as stream:
        assert broken(stream, Corrupt) == b"a\r\n1\r\n"
    with runner.stream(ENDLESS, [], NOWHERE, "csv", meanwhile=check) as stream:
        assert broken(stream, Corrupt)


def test_a_check_that_fails_at_once_precedes_the_stream(runner):
    def check():
        raise Corrupt("an object is altered")

    with pytest.raises(Corrupt), runner.stream("select 1", [], NOWHERE, "csv", meanwhile=check):
        pass


def test_an_object_that_goes_away_breaks_the_stream(runner, store):
    rows = pa.table({"a": pa.array(range(300_000), pa.int64())})
    for name in ("one", "two"):
        sink = io.BytesIO()
        pq.write_table(rows, sink, row_group_size=20_000, compression="none")
        store.put_if_absent(f"{name}.parquet", sink.getvalue())
    uris = [store.access.uri(f"{name}.parquet") for name in ("one", "two")]
    relation = Relation("numbers", (("a", "BIGINT"),), uris)
    store.delete(["two.parquet"])
    with (
        pytest.raises(TraceError) as caught,
        runner.stream("select * from numbers", [relation], store.access, "arrow") as stream,
    ):
        for _ in stream:
            pass
    assert isinstance(caught.value, Unavailable)
