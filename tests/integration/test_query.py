"""SQL from users over Parquet on a real S3 server: correct results, and no access to anything else."""

import io
import time

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.outsider import outsider
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import InvalidInput, TooLate, TraceError, Unavailable
from trace_dagster.query.protocol import MAX_ROWS, QueryLimits, Relation
from trace_dagster.query.render import to_json
from trace_dagster.query.runner import QueryRunner
from trace_dagster.query.session import QuerySession
from trace_dagster.store.access import S3Access

pytestmark = pytest.mark.integration
COLUMNS = (("block_hash", "BLOB"), ("block_number", "BIGINT"), ("gas_used", "BIGINT"))
SCHEMA = dataset("blocks").schema(["block_hash", "block_number", "gas_used"])
BLOCKS_PER_FILE = 50


def put_blocks(store, key, numbers):
    rows = [{"block_hash": bytes([n % 256]) * 32, "block_number": n, "gas_used": 2**62 + n} for n in numbers]
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
def relations(uris):
    return [
        Relation("chain_1.blocks", COLUMNS, uris),
        Relation("blocks", COLUMNS, uris),
        Relation("chain_2.logs", COLUMNS, ()),
        Relation("logs", COLUMNS, ()),
    ]


@pytest.fixture
def ask(store, relations, runner):
    """Return a function that runs one query in a process of its own."""
    return lambda sql, limit=1000: runner.query(sql, relations, store.access, limit)


def test_both_names_of_a_relation_read_all_its_files(ask):
    for name in ("blocks", "chain_1.blocks", '"chain_1"."blocks"', "BLOCKS"):
        result = ask(f"select count(*) as n, sum(block_number) as total from {name}")
        assert result.rows == [(150, sum(range(150)))]
    assert result.columns == (("n", "BIGINT"), ("total", "HUGEINT"))


def test_only_the_files_listed_are_read(ask, store):
    put_blocks(store, "cryo/1/d/150.parquet", range(150, 200))
    assert ask("select max(block_number) from blocks").rows == [(149,)]


def test_an_empty_relation_has_its_columns_and_no_rows(ask):
    result = ask("select * from logs union all select * from chain_2.logs")
    assert result.rows == []
    assert result.columns == (("block_hash", "BLOB"), ("block_number", "BIGINT"), ("gas_used", "BIGINT"))


def test_a_result_with_more_rows_than_the_limit_is_marked_truncated(ask):
    query = "select block_number from blocks order by 1"
    assert [len(ask(query, n).rows) for n in (149, 150, 151)] == [149, 150, 150]
    assert [ask(query, n).truncated for n in (149, 150, 151)] == [True, False, False]
    assert ask(query, 3).rows == [(0,), (1,), (2,)]


@pytest.mark.parametrize(("requested", "returned"), [(-5, 1), (0, 1), (10**9, MAX_ROWS)])
def test_the_limit_is_clamped(ask, requested, returned):
    result = ask("select * from range(20000)", requested)
    assert (len(result.rows), result.truncated) == (returned, True)


def test_a_huge_result_is_not_read_into_memory(ask):
    result = ask("select * from range(100000000000)", 2)
    assert (result.rows, result.truncated) == ([(0,), (1,)], True)
    result = ask("select to_days(range::integer % 7) from range(100000000000)", 2)
    assert (result.rows, result.truncated) == ([("00:00:00",), ("1 day",)], True)


def test_json_form(ask):
    result = ask("select block_number, gas_used, block_hash from blocks where block_number in (7, 8)", 1)
    assert to_json(result) == {
        "columns": [
            {"name": "block_number", "type": "BIGINT"},
            {"name": "gas_used", "type": "BIGINT"},
            {"name": "block_hash", "type": "BLOB"},
        ],
        "rows": [[7, str(2**62 + 7), "0x" + "07" * 32]],
        "truncated": True,
    }


SLOW = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 7"
UNINTERRUPTIBLE = "select levenshtein(s, s || 'b') from (select string_agg('a', '') as s from range(200000))"


@pytest.mark.parametrize("sql", [SLOW, UNINTERRUPTIBLE])
def test_a_query_ends_at_its_deadline_and_the_next_one_runs(store, relations, sql):
    with QueryRunner(QueryLimits(timeout_seconds=1.0)) as runner:
        started = time.monotonic()
        with pytest.raises(TooLate, match="too long"):
            runner.query(sql, relations, store.access)
        assert time.monotonic() - started < 10
        result = runner.query("select count(*) from blocks", relations, store.access, timeout_seconds=60)
        assert result.rows == [(150,)]


@pytest.mark.parametrize(
    "sql",
    [
        "select count(distinct md5(range::varchar)) from range(50000000)",
        "select repeat('x', 3000000000)",
        "select sum(length(replace(s || range, 'a', s))) from (select string_agg('a', '') as s from range(3000)),"
        " range(2048)",
    ],
)
def test_a_query_that_needs_too_much_memory_ends_with_a_reason(store, relations, sql):
    with QueryRunner(QueryLimits(memory_mib=256)) as runner:
        with pytest.raises(InvalidInput, match="more memory"):
            runner.query(sql, relations, store.access)
        assert runner.query("select count(*) from blocks", relations, store.access).rows == [(150,)]


def test_a_query_that_crashes_its_process_says_so_and_the_next_one_runs(ask):
    deep = "(select string_agg('[', '') || string_agg(']', '') as s from range(3000000))"
    with pytest.raises(InvalidInput, match=r"crashed its process \(SIG"):
        ask(f"select json_structure(s) from {deep}")
    assert ask("select count(*) from blocks").rows == [(150,)]


def test_the_result_is_limited_in_bytes_as_well_as_rows(store, relations):
    with QueryRunner(QueryLimits(result_mib=1)) as runner:
        result = runner.query("select repeat('x', 100000) from range(100)", relations, store.access)
        assert (len(result.rows), result.truncated) == (10, True)
        with pytest.raises(InvalidInput, match="one row of the result is larger than 1 MiB"):
            runner.query("select repeat('x', 2000000)", relations, store.access)


def test_a_result_of_many_lists_does_not_grow_beyond_the_limit(store, relations):
    with QueryRunner(QueryLimits(memory_mib=512, result_mib=8, timeout_seconds=30)) as runner:
        sql = "select l from (select list(range) l from range(30000)), range(1000)"
        result = runner.query(sql, relations, store.access)
        assert (30 < len(result.rows) < 60, result.truncated) == (True, True)


def test_the_catalog_of_a_session_lists_its_relations(ask):
    tables = ask("select table_schema, table_name from information_schema.tables order by 1, 2").rows
    assert tables == [("chain_1", "blocks"), ("chain_2", "logs"), ("main", "blocks"), ("main", "logs")]
    assert ask("show tables").rows == [("blocks",), ("logs",)]
    described = [row[:2] for row in ask("describe blocks").rows]
    assert described == [("block_hash", "BLOB"), ("block_number", "BIGINT"), ("gas_used", "BIGINT")]
    assert ask("select column_name from information_schema.columns where table_name = 'logs'").rows


@pytest.mark.parametrize("form", ["explain", "explain analyze"])
def test_a_plan_names_no_file(ask, store, form):
    plan = ask(f"{form} select count(*) from blocks where block_number > 100").rows
    text = "\n".join(line for (line,) in plan)
    assert "PARQUET" in text
    assert ("Rows: " in text) == (form == "explain analyze")
    assert "block_number>100" in text
    assert store.access.bucket not in text
    assert ".parquet" not in text


def test_a_hex_text_compared_with_a_binary_column_means_its_bytes(ask):
    seven = "07" * 32
    for condition in (
        f"block_hash = '0x{seven}'",
        f"'0X{seven}' = block_hash",
        f"block_hash in ('0x{seven}', '0xab')",
        f"block_hash is not distinct from '0x{seven}'",
        f"case block_hash when '0x{seven}' then true end",
    ):
        assert ask(f"select block_number from blocks where {condition}").rows == [(7,)]
    assert ask(
        f"with h as (select block_hash as h, block_number as n from blocks) select n from h where h = '0x{seven}'"
    ).rows
    assert ask(f"select '0x' || hex(block_hash) = '0x{seven}' from blocks where block_number = 7").rows == [(True,)]


SEVEN = f"'0x{'07' * 32}'"
BINARY = [
    "select count(*) from (select block_hash = {H} as b from blocks) where b",
    "with e as (select *, block_hash = {H} as t from blocks) select count(*) from e where t",
    "select count(*) from blocks where case when block_hash = {H} then 'x' else 'y' end = 'x'",
    "select n from (select block_hash = {H} as hit, count(*) n from blocks group by block_hash = {H}) where hit",
    "select n from (select case when block_hash = {H} then 1 end k, count(*) n from blocks"
    " group by case when block_hash = {H} then 1 end) where k = 1",
    "select list_filter(list(block_hash), x -> x = {H}).len() from blocks",
    "select len([x for x in list(block_hash) if x = {H}]) from blocks",
    "select count(*) from blocks where block_number < '200'::int and block_hash = {H}",
    "select count(*) filter (where b) from (select distinct on (block_hash = {H}) block_hash = {H} b from blocks)",
    "select count(*) from blocks where (gas_used > 0) is true and block_hash = {H}",
    "select count(*) from blocks where block_hash = {H} or '/* ' || {H} = ''",
    "pivot (select block_hash = {H} as t from blocks) on t using count(*)",
    "select count(*) from blocks where block_hash in [{H}, '0xab']",
    "select count(*) from blocks where block_hash = any([{H}]) and block_hash != '0xab'",
    "select count(*) from blocks where list_contains(['0xab', {H}], block_hash)",
    "select count(*) from blocks where block_hash in (select unnest([{H}]))",
]


@pytest.mark.parametrize("literal", [SEVEN, SEVEN.strip("'"), f"X'{'07' * 32}'"], ids=["a text", "0x", "X''"])
@pytest.mark.parametrize("sql", BINARY)
def test_hex_digits_mean_bytes_wherever_they_are_compared(ask, sql, literal):
    if literal != SEVEN:
        sql = sql.replace("'0xab'", "0xab").replace("'/* ' || {H}", "'/* ' || hex({H})")
    (row,) = ask(sql.replace("{H}", literal)).rows
    assert row in [(1,), (149, 1)]


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from blocks where block_hash = {H}"
        " union all select count(*) from (values ({H})) t(block_hash) where block_hash = {H}",
        "select (select count(*) from blocks where block_hash = {H})"
        " union all select (select count(*) from (select {H} as block_hash) where block_hash = {H})",
        "with t as (select {H}::varchar as block_hash), f as (select * from t where block_hash = {H})"
        " select count(*) from f union all select count(*) from blocks where block_hash = {H}",
        "select (select count(*) from (select {H} as block_hash) where block_hash = {H}) from blocks"
        " where block_hash = {H} union all select 1",
    ],
)
def test_a_text_stays_a_text_where_a_text_column_has_the_name_of_a_binary_one(ask, sql):
    assert ask(sql.replace("{H}", SEVEN)).rows == [(1,), (1,)]


def test_the_columns_of_a_rewritten_query_have_the_names_of_the_query(ask):
    result = ask(f"select count(*) filter (where block_hash = {SEVEN}), 1e9 from blocks")
    assert [name for name, _ in result.columns] == [
        f"count_star() FILTER (WHERE (block_hash = {SEVEN}))",
        "1000000000.0",
    ]


def test_a_binary_literal_is_binary_and_keeps_its_name(ask):
    result = ask("select 0xAB, x'cd' as c, 0x, block_hash <> 0xab from blocks limit 1")
    assert list(result.columns) == [
        ("0xAB", "BLOB"),
        ("c", "BLOB"),
        ("0x", "BLOB"),
        ("(block_hash != 0xab)", "BOOLEAN"),
    ]
    assert result.rows == [("0xab", "0xcd", "0x", True)]
    for sql, told in {
        "select 0xabc": "0xabc has an odd number",
        "select X'zz'": "X'zz' has characters that are no hex digits",
        "select 1 from blocks where block_number = 0x10": "a number is compared with bytes, write it without 0x",
        "select * from x'00'": "unhex",
    }.items():
        with pytest.raises(InvalidInput, match=told):
            ask(sql)


def test_many_comments_before_a_query_take_no_time(ask):
    assert ask("/* header */" * 200 + "select 1").rows == [(1,)]
    assert ask("/* a */ select '*/ explain select 1' as x").rows == [("*/ explain select 1",)]


def test_names_of_columns_are_limited(ask):
    with pytest.raises(InvalidInput, match="names of the 100 columns are too long"):
        ask(f'with t as (select 1 as "{"x" * 20000}") select {", ".join(["t.*"] * 100)} from t')
    with pytest.raises(InvalidInput, match="at most 100000 bytes"):
        ask(f"select '{'x' * 10_000_000}'")


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("interval '1 month'", "1 month"),
        ("interval '100000000 years'", "100000000 years"),
        ("timestamp '2024-03-01 12:00' - timestamp '2024-02-01'", "29 days 12:00:00"),
        ("[interval '30 days', null]", ["30 days", None]),
        ("map {interval '1 day': 1}", {"1 day": 1}),
        ("union_value(a := timestamp_ns '2024-01-01 00:00:00.123456789')", "2024-01-01 00:00:00.123456789"),
        ("{'u': union_value(a := '\\xab'::blob), 'n': 2}", {"u": "\\xAB", "n": 2}),
        ("timestamp_ns '2024-01-01 00:00:00.123456789'::variant", "2024-01-01 00:00:00.123456789"),
        ("row(1, 'x')", [1, "x"]),
        ("row(interval '1 day', 2, row(interval '1 month'))", ["1 day", 2, ["1 month"]]),
    ],
)
def test_types_that_python_has_not_are_text_and_keep_their_names(ask, expression, shown):
    result = ask(f"select {expression} as v, 1 as n")
    assert result.rows == [(shown, 1)]
    with duckdb.connect() as connection:
        kinds = connection.sql(f"select {expression}, 1").types
    assert [kind for _, kind in result.columns] == [str(kind) for kind in kinds]


def test_a_value_that_python_cannot_hold_says_so(ask):
    assert ask("select repeat('9', 5000)::bignum").rows == [("9" * 5000,)]
    with pytest.raises(InvalidInput, match="cast it to VARCHAR"):
        ask("select 'infinity'::date")


def test_a_damaged_file_is_not_named(store, relations):
    store.delete(["cryo/1/d/50.parquet"])
    store.put_if_absent("cryo/1/d/50.parquet", b"no Parquet")
    with QueryRunner() as runner, pytest.raises(Unavailable, match="trace-lite verify") as caught:
        runner.query("select sum(gas_used) from blocks", relations, store.access)
    assert ".parquet" not in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("block_hash = '0x070'", "odd number of digits"),
        (f"block_hash = '{'07' * 32}'", "write the bytes as 0xab12, without quotes"),
        (f"block_hash in (select '0x{'07' * 32}')", "write the bytes as 0xab12, without quotes"),
        (f"(block_hash, 1) = ('0x{'07' * 32}', 1)", "write the bytes as 0xab12, without quotes"),
        ("block_hash in ['0x070']", "odd number of digits"),
        ("block_hash in ['0xab', 'cd']", "write the bytes as 0xab12, without quotes"),
        (f"block_hash in (select unnest(['{'07' * 32}']))", "write the bytes as 0xab12, without quotes"),
    ],
)
def test_a_text_that_cannot_become_bytes_is_refused_with_the_right_form(ask, condition, message):
    with pytest.raises(InvalidInput, match=message):
        ask(f"select * from blocks where {condition}")


@pytest.mark.parametrize(
    "condition",
    [
        "block_hash in (select {H})",
        "(block_hash, 1) = ({H}, 1)",
        "block_hash in (values ({H}), (0xcd))",
        "(block_hash, block_number) in (({H}, 7), ({H}, 8))",
        "block_hash = (select {H})",
    ],
)
def test_the_right_form_is_right_where_a_text_is_refused(ask, condition):
    literal = f"0x{'07' * 32}"
    assert ask(f"select block_number from blocks where {condition.replace('{H}', literal)}").rows == [(7,)]
    with pytest.raises(InvalidInput, match="without quotes"):
        ask(f"select block_number from blocks where {condition.replace('{H}', repr(literal))}")


def test_text_from_a_list_of_addresses_is_refused_with_the_right_form(ask):
    with pytest.raises(InvalidInput, match="compared with a binary value"):
        ask("with wanted(h) as (values ('0x0707')) select * from blocks join wanted on h = block_hash")


def test_a_pivot_finds_its_values(ask):
    result = ask("pivot (select block_number // 50 as part from blocks) on part using count(*)")
    assert [name for name, _ in result.columns] == ["0", "1", "2"]
    assert result.rows == [(50, 50, 50)]
    two = "select block_number % 2 as odd, block_number // 100 as part from blocks"
    result = ask(f"with t as ({two}) select * from (pivot t on part, odd using count(*) as n, max(part))")
    assert len(result.columns) == 8
    with pytest.raises(InvalidInput, match="more than 500 values"):
        ask("pivot (select range as n from range(501)) on n using count(*)")
    assert ask("pivot logs on block_number using count(*)").rows == []
    case = "case when block_number in (1, 2) then 'few' else 'many' end"
    assert ask(f"pivot (select block_number from blocks) on {case} using count(*)").rows
    assert ask("with x as (select 1 a) select * from (with x as (select 7 a) select * from (pivot x on a))").columns


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select nope from blocks", "nope"),
        ("select 'x'::int", "Could not convert"),
        ("select 9223372036854775807::bigint + 1", "Overflow"),
        ("select $1", "parameter"),
    ],
)
def test_the_error_of_a_wrong_query_is_one_line_with_the_reason(ask, sql, message):
    with pytest.raises(InvalidInput) as caught:
        ask(sql)
    assert message.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_a_missing_object_is_unavailable_and_the_error_has_no_secret(store, ask):
    store.delete(["cryo/1/d/50.parquet"])
    with pytest.raises(Unavailable) as caught:
        ask("select sum(gas_used) from blocks")
    assert store.access.secret_key not in str(caught.value)
    assert store.access.host not in str(caught.value)


def test_the_error_of_a_refused_key_does_not_contain_the_key(store, relations):
    wrong = S3Access(store.access.bucket, store.access.access_key, "not-the-secret", store.access.endpoint)
    with QueryRunner() as runner, pytest.raises(TraceError) as caught:
        runner.query("select count(*) from blocks", relations, wrong)
    assert "not-the-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_gate_refuses_what_the_locked_connection_would_allow(ask, store):
    inside = store.access.uri("cryo/1/d/0.parquet")
    with outsider() as (host, requested_paths):
        refuse_all(ask, inside, host, store)
        assert requested_paths == []
    assert sorted(store.keys("")) == [f"cryo/1/d/{n}.parquet" for n in (0, 100, 50)]


def refuse_all(ask, inside, host, store):
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
        "select * from read_text('/etc/hostname')",
        "select current_setting('s3_secret_access_key')",
    ):
        with pytest.raises(InvalidInput):
            ask(sql)


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
def test_template_sql_cannot_leave_its_files_either(store, relations, sql):
    """The gate does not check templates; the locked connection refuses these statements."""
    with QuerySession.over(relations, store.access) as session, pytest.raises(TraceError):
        session.table(sql, {})
