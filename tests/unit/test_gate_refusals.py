"""The gate's refusals by reason: not exactly one SELECT, unknown tables, table functions, functions, hostile text."""

import duckdb
import pytest

from tests.support.gate import check
from trace_dagster.errors import InvalidInput
from trace_dagster.query.gate import allowed_functions
from trace_dagster.query.protocol import MAX_SQL_BYTES

TABLES = ("blocks", "chain_1.blocks", "logs")

HARMLESS = [
    "select count(*) as n from blocks",
    "SELECT * FROM Blocks;",
    "from chain_1.blocks limit 3",
    'select * from "chain_1"."blocks"',
    "table blocks",
    "values (1), (2)",
    "with recent as (select * from blocks), half as (select * from recent) select * from half",
    "with recursive t(n) as (select 1 union all select n + 1 from t where n < 9) select sum(n) from t",
    "with blocks as (select * from blocks where gas_used > 0) select * from blocks",
    "select * from (with inner_one as (select 1) select * from inner_one)",
    "with x as (select 1 as a) select * from x, (with y as (select * from x) select * from y)",
    "select * from blocks b join logs l using (block_number) left join chain_1.blocks c on true",
    "select * from blocks where block_number in (select block_number from logs)",
    "select block_number, lag(gas_used) over (order by block_number) from blocks qualify row_number() over () < 5",
    "select * from range(3), unnest([1, 2]) u(x), generate_series(1, 2)",
    "select hex(block_hash), sum(value::bignum)::varchar from blocks group by all",
    "select date_trunc('day', to_timestamp(timestamp)) from blocks",
    "select case when gas_used > 1 then 'a' else 'b' end, coalesce(gas_used, 0), * exclude (gas_used) from blocks",
    "select count(*) filter (where gas_used > 1), [1, 2][1], {'a': 1}.a, 'x' like 'y%' from blocks",
    "select * from (from blocks) pivot (count(*) for block_number in (1, 2))",
    "select 1 union select 2 except select 3 intersect select 4 order by 1",
    "select * from blocks using sample 10",
    "select 'drop table blocks; copy x to y' -- attach 'z'",
]

NOT_ONE_SELECT = [
    "",
    ";",
    "-- nothing",
    "select 1; select 2",
    "select 1; drop view blocks",
    "explain drop view blocks",
    "explain (format json) select 1",
    "explain explain select 1",
    "copy (select 1) to 's3://bucket/prefix/x.parquet'",
    "copy blocks from 'x.csv'",
    "attach 'x.db'",
    "attach 'postgres://h/d' as p (type postgres)",
    "detach memory",
    "use memory",
    "pragma enable_profiling",
    "pragma memory_limit = '1TB'",
    "set memory_limit = '1TB'",
    "reset all",
    "set variable x = 1",
    "install httpfs",
    "load 'x.duckdb_extension'",
    "call enable_logging()",
    "call pragma_version()",
    "export database 'x'",
    "import database 'x'",
    "create table t as select 1",
    "create secret s (type s3)",
    "create or replace view blocks as select 1",
    "create macro m() as 1",
    "create type t as enum ('a')",
    "drop secret lake",
    "drop view blocks",
    "alter view blocks rename to b",
    "insert into blocks values (1)",
    "update blocks set gas_used = 1",
    "delete from blocks",
    "merge into blocks using logs on true when matched then delete",
    "truncate blocks",
    "prepare p as select 1",
    "execute p",
    "begin",
    "checkpoint",
    "vacuum",
    "comment on view blocks is 'x'",
    "pragma json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "pragma import_database('x')",
    "explain pragma version",
    "pragma database_list",
]

NOT_OUR_TABLES = [
    "describe duckdb_views",
    "summarize duckdb_views",
    "show databases",
    "show schemas",
    "select * from (describe duckdb_views)",
    "select * from (show databases)",
    "explain select * from duckdb_views",
    "pivot duckdb_views on sql using count(*)",
    "select * from 's3://bucket/prefix/x.parquet'",
    'select * from "s3://bucket/prefix/x?s3_endpoint=10.0.0.1:80"',
    "select * from '/etc/passwd'",
    "from 'x.csv'",
    "select * from information_schema.schemata",
    "select * from pg_catalog.pg_class",
    "select * from sqlite_master",
    "select * from duckdb_views",
    "select * from duckdb_secrets",
    "select * from memory.main.blocks",
    "select * from chain_2.blocks",
    "select * from blocks where exists (select * from duckdb_views)",
    "select (select max(sql) from duckdb_views)",
    "select * from blocks, lateral (select * from sqlite_master)",
    "select * from blocks order by (select 1 from duckdb_tables)",
    "select * from blocks limit (select count(*) from duckdb_tables)",
    "select * from blocks union all by name select * from duckdb_views",
    "select 1 where 1 in (table duckdb_views)",
    "select * from (with duckdb_views as (select 1) select 1), duckdb_views",
    "select * from blocks at (version => 1)",
    "select * from blocks at (timestamp => now())",
    "with recursive r as (select 1 as a union all select a from recurring.r) select * from r",
]

NOT_OUR_TABLE_FUNCTIONS = [
    f"select * from {call}"
    for call in (
        "read_parquet('s3://bucket/prefix/x?s3_endpoint=h:1')",
        "parquet_scan('x')",
        "parquet_metadata('x')",
        "parquet_kv_metadata('x')",
        "read_csv('x')",
        "read_json('x')",
        "read_text('/etc/passwd')",
        "read_blob('/etc/passwd')",
        "sniff_csv('x')",
        "glob('/**')",
        "query('select 1')",
        "query_table('duckdb_views')",
        "duckdb_secrets()",
        "duckdb_settings()",
        "duckdb_views()",
        "duckdb_databases()",
        "duckdb_logs()",
        "which_secret('s3://b', 's3')",
        "pragma_database_list()",
        "histogram(blocks, gas_used)",
        "sql_auto_complete('select')",
        "json_execute_serialized_sql('{}')",
        "from_substrait('x')",
        "arrow_scan(1, 2, 3)",
        "pandas_scan(1)",
        "seq_scan('x')",
        "test_all_types()",
        "repeat('x', 3000000000)",
        "repeat_row(1, num_rows = 9)",
        "postgres_query('p', 'select 1')",
        "postgres_scan('', '', '')",
        "main.read_text('x')",
    )
]

NOT_OUR_FUNCTIONS = [
    f"select {call}"
    for call in (
        "getenv('HOME')",
        "getvariable('x')",
        "\"getenv\"('HOME')",
        "GetEnv('HOME')",
        "(1 + abs(length(getenv('HOME'))))",
        "count(*) filter (where getenv('HOME') = '') from blocks",
        "sum(1) over (order by getenv('HOME')) from blocks",
        "case when getenv('HOME') = '' then 1 end",
        "[x for x in [getenv('HOME')]]",
        "* replace (getenv('HOME') as gas_used) from blocks",
        "columns(c -> getenv('HOME') = c) from blocks",
        "list_aggregate([1], 'sum') from range(length(getenv('HOME')))",
        "1 from blocks group by getenv('HOME')",
        "1 from blocks having getenv('HOME') = ''",
        "1 from (values (getenv('HOME')))",
        "nextval('s')",
        "currval('s')",
        "write_log('x')",
        "query_table('x')",
        "json_serialize_sql('select 1')",
        "json_serialize_plan('select 1')",
        "json_deserialize_sql('{}')",
        "error('x')",
        "txid_current()",
        "pg_get_viewdef('x')",
        "current_query()",
        "no_such_function(1)",
    )
]


@pytest.mark.parametrize("sql", HARMLESS)
def test_a_harmless_query_passes(sql):
    check(sql, TABLES)


@pytest.mark.parametrize("sql", NOT_ONE_SELECT)
def test_anything_but_one_select_is_refused(sql):
    with pytest.raises(InvalidInput, match=r"exactly one SELECT|not valid SQL"):
        check(sql, TABLES)


@pytest.mark.parametrize("sql", NOT_OUR_TABLES)
def test_other_tables_are_refused(sql):
    with pytest.raises(InvalidInput, match=r"no table is called|may not use|not valid SQL"):
        check(sql, TABLES)


@pytest.mark.parametrize("sql", NOT_OUR_TABLE_FUNCTIONS)
def test_other_table_functions_are_refused(sql):
    with pytest.raises(InvalidInput, match="may not read from"):
        check(sql, TABLES)


@pytest.mark.parametrize("sql", NOT_OUR_FUNCTIONS)
def test_other_functions_are_refused(sql):
    with pytest.raises(InvalidInput, match="not on the list of allowed functions"):
        check(sql, TABLES)


@pytest.mark.parametrize(
    "call",
    [
        "current_setting('s3_secret_access_key')",
        "pg_catalog.current_setting('s3_secret_access_key')",
        "current_setting('TimeZone' || '')",
        "current_setting(lower('TIMEZONE'))",
        "current_setting(x) from (values ('s3_secret_access_key')) v(x)",
        "current_setting()",
        "current_setting('timezone', 'x')",
    ],
)
def test_no_setting_but_the_time_zone_can_be_read(call):
    with pytest.raises(InvalidInput, match="only be called with 'TimeZone'"):
        check(f"select {call}", TABLES)


@pytest.mark.parametrize("quoted", ["$$x.parquet$$", "$a$x.parquet$a$", "U&'x.parquet'", "E'x.parquet'", "x'00'"])
def test_no_way_of_quoting_makes_a_file_a_table(quoted):
    with pytest.raises(InvalidInput):
        check(f"select * from {quoted}", TABLES)


def test_quoted_text_is_only_text():
    check("select $$ attach 'x'; copy $$, $a$ read_text('/etc/passwd') $a$, 'getenv(1)' as \"pragma\"", TABLES)


def test_the_refusal_lists_the_offered_tables():
    with pytest.raises(InvalidInput, match=r"no table is called 'bloks'; there are: blocks, chain_1\.blocks, logs"):
        check("select * from bloks", TABLES)
    with pytest.raises(InvalidInput, match="there are: none yet"):
        check("select * from blocks", ())


@pytest.mark.parametrize(
    "sql",
    [
        "select '" + "x" * MAX_SQL_BYTES + "'",
        "select " + "(" * 40_000 + "1" + ")" * 40_000,
        "select * from " + "(select * from " * 3_000 + "blocks" + ")" * 3_000,
        "select " + "abs(" * 9_000 + "1" + ")" * 9_000,
        "select 1" + "::int" * 9_000,
        "select \0 1",
        "selec 1",
        "select 'unfinished",
        "select * from\n\n\nbloks where\n",
    ],
)
def test_hostile_text_is_refused_in_one_line(sql):
    with pytest.raises(InvalidInput) as caught:
        check(sql, TABLES)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_union_of_many_queries_does_not_count_as_nesting():
    check("select 1" + " union all select 1" * 2_000, TABLES)


def functions(where):
    rows = duckdb.sql(f"select distinct lower(function_name) from duckdb_functions() where {where}").fetchall()
    return {name for (name,) in rows}


def test_every_allowed_function_exists():
    parsed_as_operators = {"coalesce"}
    assert {name.lower() for name in allowed_functions()} - parsed_as_operators <= functions("true")


def test_the_only_volatile_functions_are_random_numbers():
    random = {"random", "setseed", "uuid", "gen_random_uuid", "uuidv4", "uuidv7"}
    assert allowed_functions() & functions("has_side_effects or stability = 'VOLATILE'") == random
    assert allowed_functions() & functions("function_type = 'pragma'") == {"version"}


def test_functions_that_are_only_table_functions_are_not_allowed():
    elsewhere = functions("function_type in ('scalar', 'aggregate', 'macro')")
    only_tables = functions("function_type in ('table', 'table_macro')") - elsewhere
    assert allowed_functions() & only_tables <= {"unnest"}
