"""The scope of CTE names. Outside of it DuckDB opens the name as a file or looks it up in its catalog."""

import pytest

from tests.support.gate import check
from trace_dagster.errors import InvalidInput

TABLES = ("blocks", "chain_1.blocks")
FILE = '"s3://bucket/prefix/x.parquet?s3_endpoint=10.0.0.1:80"'


@pytest.mark.parametrize(
    "sql",
    [
        f"with {FILE} as (select * from {FILE}) select * from {FILE}",
        f"with a as (select * from {FILE}), {FILE} as (select 1) select * from a",
        f"with a as (with {FILE} as (select 1) select * from {FILE}) select * from {FILE}",
        "with duckdb_views as (select * from duckdb_views) select * from duckdb_views",
        "with recursive sqlite_master as (select * from sqlite_master) select * from sqlite_master",
        "with recursive v as (select 1 as a union all select a from v), w as (select * from x), x as (select 1)"
        " select * from w",
        "with recursive duckdb_views as (select sql from duckdb_views union all select sql from duckdb_views)"
        " select * from duckdb_views",
        'select * from "chain_1.blocks"',
    ],
)
def test_a_cte_name_outside_its_scope_is_refused(sql):
    with pytest.raises(InvalidInput, match="no table is called"):
        check(sql, TABLES)


@pytest.mark.parametrize("sql", ["select " + "1+" * 900 + "1", "select " + "[" * 900 + "1" + "]" * 900])
def test_deep_nesting_is_refused_without_a_crash(sql):
    with pytest.raises(InvalidInput):
        check(sql, TABLES)


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(InvalidInput, match="Unicode"):
        check("select '\ud800'", TABLES)


@pytest.mark.parametrize(
    ("cte", "read"),
    [
        ("duc\u212adb_views", "duckdb_views"),
        ("x\u00c9.csv", "x\u00e9.csv"),
        ("\u0130.csv", "i.csv"),
        ("\u017f.csv", "s.csv"),
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        'with "{0}" as (select 1) select * from "{1}"',
        'with recursive "{0}" as (select 1 as a union all select a from "{1}") select * from "{0}"',
    ],
)
def test_names_are_folded_as_duckdb_folds_them(cte, read, form):
    """DuckDB folds ASCII letters only, so another name with the same ``str.lower`` is another table or a file."""
    with pytest.raises(InvalidInput, match="no table is called"):
        check(form.format(cte, read), TABLES)


def test_ascii_letters_of_any_case_are_one_name():
    assert check('with "Recent" as (from Blocks) select * from recent, CHAIN_1.blocks, MAIN.BLOCKS', TABLES) == {
        "blocks",
        "chain_1.blocks",
    }


@pytest.mark.parametrize("arguments", ["getenv('HOME')::int", "length((select max(sql) from duckdb_views))"])
def test_arguments_of_table_functions_are_checked(arguments):
    with pytest.raises(InvalidInput):
        check(f"select * from range({arguments})", TABLES)
