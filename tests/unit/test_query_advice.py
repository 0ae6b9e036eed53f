"""Errors of DuckDB about amounts, with what to write instead."""

from __future__ import annotations

import duckdb
import pytest

from trace_dagster.query.session import mapped_error

AS_NUMBER = "array_slice(x, 17, 32)::bit::hugeint"


def error_of(sql: str) -> str:
    with duckdb.connect() as connection:
        connection.execute("create table transactions (value_binary blob, block_number bigint)")
        with pytest.raises(duckdb.Error) as failed:
            connection.execute(sql)
    return str(mapped_error(failed.value))


@pytest.mark.parametrize("column", ["value_string", "value_f64", "t.value_string"])
def test_a_form_of_a_uint256_that_is_not_stored_names_the_one_that_is(column):
    told = error_of(f"select {column} from transactions t")
    assert "only if `columns` of the stream names it" in told
    assert "value_binary" in told
    assert AS_NUMBER in told


@pytest.mark.parametrize(
    "expression", ["sum(value_binary)", "avg(value_binary)", "value_binary + 1", "2 * value_binary"]
)
def test_arithmetic_on_bytes_says_how_they_become_a_number(expression):
    assert AS_NUMBER in error_of(f"select {expression} from transactions")


@pytest.mark.parametrize("condition", ["like '0xab%'", "not like 'a'", "ilike 'a'"])
def test_a_pattern_of_bytes_says_how_they_become_a_text(condition):
    assert "lower(hex(x)) like 'ab12%'" in error_of(f"select 1 from transactions where value_binary {condition}")


def test_a_function_of_texts_says_how_bytes_become_one():
    for name in ("starts_with", "contains", "regexp_matches"):
        told = error_of(f"select 1 from transactions where {name}(value_binary, '0xab')")
        assert "lower(hex(x)) like 'ab12%'" in told
    with duckdb.connect() as connection:
        assert connection.execute("select lower(hex('\\xAB\\x12'::blob)) like 'ab12%'").fetchone() == (True,)


@pytest.mark.parametrize("column", ["nonsense", "a_string_of_mine"])
def test_other_missing_columns_get_no_advice(column):
    assert AS_NUMBER not in error_of(f"select {column} from transactions")


def test_the_advice_is_right_and_wrong_only_beyond_what_it_says():
    with duckdb.connect() as connection:
        for number in (0, 1, 255, 10**18, 2**64, 2**127 - 1):
            (found,) = connection.execute(
                "select array_slice($1::blob, 17, 32)::bit::hugeint", [number.to_bytes(32, "big")]
            ).fetchone()
            assert found == number


def test_an_interrupt_that_nobody_asked_for_says_what_to_do():
    """DuckDB may tell of the thread that it ended when another one had failed."""
    error = mapped_error(duckdb.Error("INTERRUPT Error: Interrupted!"))
    assert "run it again" in str(error)
