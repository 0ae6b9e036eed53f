"""SQL from users over Parquet on a real S3 server: correct results, and no access to anything else."""

import http.server
import io
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.query.render import to_json
from trace_dagster.query.session import MAX_ROWS, QueryLimits, QuerySession, Relation
from trace_dagster.store.access import S3Access

pytestmark = pytest.mark.integration
SCHEMA = dataset("blocks").schema(["block_hash", "block_number", "gas_used"])
BLOCKS_PER_FILE = 50


def put_blocks(store, key, numbers):
    rows = [{"block_hash": bytes([n % 256]) * 32, "block_number": n, "gas_used": 2**63 + n} for n in numbers]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink)
    store.put_if_absent(key, sink.getvalue())
    return store.access.uri(key)


@pytest.fixture
def uris(store):
    return tuple(
        put_blocks(store, f"cryo/1/d/{start}.parquet", range(start, start + BLOCKS_PER_FILE)) for start in (0, 50, 100)
    )


@pytest.fixture
def session(store, uris):
    relations = [
        Relation("chain_1.blocks", SCHEMA, uris),
        Relation("blocks", SCHEMA, uris),
        Relation("chain_2.logs", SCHEMA, ()),
        Relation("logs", SCHEMA, ()),
    ]
    with QuerySession(relations, store.access) as opened:
        yield opened


def test_both_names_of_a_relation_read_all_its_files(session):
    for name in ("blocks", "chain_1.blocks", '"chain_1"."blocks"', "BLOCKS"):
        result = session.query(f"select count(*) as n, sum(block_number) as total from {name}")
        assert result.rows == [(150, sum(range(150)))]
    assert result.columns == (("n", "BIGINT"), ("total", "HUGEINT"))


def test_only_the_files_listed_are_read(session, store):
    put_blocks(store, "cryo/1/d/150.parquet", range(150, 200))
    assert session.query("select max(block_number) from blocks").rows == [(149,)]


def test_an_empty_relation_has_its_columns_and_no_rows(session):
    result = session.query("select * from logs union all select * from chain_2.logs")
    assert result.rows == []
    assert result.columns == (("block_hash", "BLOB"), ("block_number", "UINTEGER"), ("gas_used", "UBIGINT"))


def test_a_result_with_more_rows_than_the_limit_is_marked_truncated(session):
    query = "select block_number from blocks order by 1"
    assert [len(session.query(query, n).rows) for n in (149, 150, 151)] == [149, 150, 150]
    assert [session.query(query, n).truncated for n in (149, 150, 151)] == [True, False, False]
    assert session.query(query, 3).rows == [(0,), (1,), (2,)]


@pytest.mark.parametrize(("requested", "returned"), [(-5, 1), (0, 1), (10**9, MAX_ROWS)])
def test_the_limit_is_clamped(session, requested, returned):
    result = session.query("select * from range(20000)", requested)
    assert (len(result.rows), result.truncated) == (returned, True)


def test_a_huge_result_is_not_read_into_memory(session):
    result = session.query("select * from range(100000000000)", 2)
    assert (result.rows, result.truncated) == ([(0,), (1,)], True)


def test_json_form(session):
    result = session.query("select block_number, gas_used, block_hash from blocks where block_number in (7, 8)", 1)
    assert to_json(result) == {
        "columns": [
            {"name": "block_number", "type": "UINTEGER"},
            {"name": "gas_used", "type": "UBIGINT"},
            {"name": "block_hash", "type": "BLOB"},
        ],
        "rows": [[7, str(2**63 + 7), "0x" + "07" * 32]],
        "truncated": True,
    }


def test_a_query_that_exceeds_the_timeout_fails_and_the_session_stays_usable(store, uris):
    with QuerySession([Relation("blocks", SCHEMA, uris)], store.access, QueryLimits(timeout_seconds=0.5)) as session:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="too long"):
            session.query("select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 7")
        assert time.monotonic() - started < 10
        assert session.query("select count(*) from blocks").rows == [(150,)]


def test_a_query_that_exceeds_the_memory_limit_fails_and_the_session_stays_usable(store, uris):
    limits = QueryLimits(memory_mib=64, timeout_seconds=60)
    with QuerySession([Relation("blocks", SCHEMA, uris)], store.access, limits) as session:
        with pytest.raises(InvalidInput, match="more memory"):
            session.query("select count(distinct md5(range::varchar)) from range(50000000)")
        assert session.query("select count(*) from blocks").rows == [(150,)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select nope from blocks", "nope"),
        ("select 'x'::int", "Could not convert"),
        ("select 9223372036854775807::bigint + 1", "Overflow"),
        ("select $1", "parameter"),
    ],
)
def test_the_error_of_a_wrong_query_is_one_line_with_the_reason(session, sql, message):
    with pytest.raises(InvalidInput) as caught:
        session.query(sql)
    assert message.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_a_missing_object_is_unavailable_and_the_error_has_no_secret(store, uris):
    with QuerySession([Relation("blocks", SCHEMA, uris)], store.access) as session:
        store.delete(["cryo/1/d/50.parquet"])
        with pytest.raises(Unavailable) as caught:
            session.query("select sum(gas_used) from blocks")
        assert store.access.secret_key not in str(caught.value)
        assert store.access.host not in str(caught.value)


def test_the_error_of_a_refused_key_does_not_contain_the_key(store, uris):
    wrong = S3Access(store.access.bucket, store.access.access_key, "not-the-secret", store.access.endpoint)
    with pytest.raises(TraceError) as caught:
        QuerySession([Relation("blocks", SCHEMA, uris)], wrong)
    assert "not-the-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def outsider():
    """Yield the host of a server that a query must never reach, and the paths requested from it."""
    requested_paths = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requested_paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_PUT = do_GET  # noqa: N815  (http.server calls these names)

        def log_message(self, *_):
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", requested_paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_gate_refuses_what_the_locked_connection_would_allow(session, store, outsider):
    host, requested_paths = outsider
    inside = store.access.uri("cryo/1/d/0.parquet")
    for sql in (
        f"select * from read_parquet('{inside}?s3_endpoint={host}&s3_use_ssl=false')",
        f"select * from '{inside}?s3_endpoint={host}&s3_use_ssl=false'",
        f"select * from parquet_metadata('{inside}?s3_endpoint={host}')",
        f"copy (select 1) to '{store.access.uri('stolen.parquet')}'",
        f"create secret s (type s3, endpoint '{host}')",
        "drop secret lake",
        "call enable_logging()",
        "select sql from duckdb_views()",
        "select * from duckdb_secrets()",
        "select repeat('x', 3000000000)",
        "select * from read_text('/etc/hostname')",
        "select current_setting('s3_secret_access_key')",
    ):
        with pytest.raises(InvalidInput):
            session.query(sql)
    assert requested_paths == []
    assert sorted(store.keys("")) == [f"cryo/1/d/{n}.parquet" for n in (0, 100, 50)]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('/etc/hostname')",
        "select * from read_parquet('s3://elsewhere/x.parquet')",
        "set memory_limit = '64GB'",
        "set enable_external_access = true",
        "load '/tmp/other.duckdb_extension'",
        "install spatial",
        "attach '/tmp/x.db'",
        "copy (select 1) to '/tmp/x.parquet'",
    ],
)
def test_template_sql_cannot_leave_the_bucket_either(session, sql):
    """The gate does not check templates; the locked connection refuses these statements."""
    with pytest.raises(TraceError):
        session.table(sql, {})
