"""The macros of the analytics: exact uint256 sums, compared with Python's integers."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_dagster.analytics.templates import macros

TOP = 2**256 - 1
EDGES = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**127 - 1, 2**127, 2**128, 2**191, 2**192 - 1, 2**255, TOP]
WORDS = st.one_of(st.sampled_from(EDGES), st.integers(0, TOP))
SIGNED = st.tuples(st.sampled_from([-1, 1]), WORDS).map(lambda pair: pair[0] * pair[1])

SUM = """
with moves as (
    select sign, u256_limb(word, 0) as l0, u256_limb(word, 1) as l1, u256_limb(word, 2) as l2, u256_limb(word, 3) as l3
    from (select unnest($words) as word, unnest($signs) as sign)
)
select u256_text(u256_carry(sum(sign * l0), sum(sign * l1), sum(sign * l2), sum(sign * l3))) from moves
"""
ORDER = """
with numbers as (
    select sign, u256_limb(word, 0) as l0, u256_limb(word, 1) as l1, u256_limb(word, 2) as l2, u256_limb(word, 3) as l3
    from (select unnest($words) as word, unnest($signs) as sign)
),
carried as (select u256_carry(sign * l0, sign * l1, sign * l2, sign * l3) as number from numbers)
select u256_text(number), u256_is_positive(number) from carried order by number
"""


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as made:
        made.execute(macros())
        yield made


def parameters(values):
    return {
        "words": [abs(value).to_bytes(32, "big") for value in values],
        "signs": [-1 if value < 0 else 1 for value in values],
    }


@settings(max_examples=150, deadline=None)
@given(values=st.lists(SIGNED, min_size=1, max_size=20))
def test_sums_are_exact(connection, values):
    ((found,),) = connection.execute(SUM, parameters(values)).fetchall()
    assert found == str(sum(values))


@settings(max_examples=100, deadline=None)
@given(values=st.lists(SIGNED, min_size=1, max_size=20))
def test_carried_values_sort_as_numbers(connection, values):
    found = connection.execute(ORDER, parameters(values)).fetchall()
    assert found == [(str(value), value > 0) for value in sorted(values)]


def test_a_million_of_the_largest_values_do_not_overflow(connection):
    query = "with w as (select $word as word) select u256_text(u256_carry(" + ", ".join(
        f"sum(u256_limb(word, {place}) * 1000000)" for place in range(4)
    )
    ((found,),) = connection.execute(query + ")) from w", {"word": TOP.to_bytes(32, "big")}).fetchall()
    assert found == str(TOP * 1_000_000)


def test_every_macro_is_described_and_none_is_built_in(connection):
    created = [line for line in macros().splitlines() if line.startswith("create macro")]
    names = {line.split("macro ")[1].split("(")[0] for line in created}
    lines = macros().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("create macro"):
            assert lines[number - 1].startswith("-- "), line
    with duckdb.connect() as fresh:
        built_in = {row[0] for row in fresh.execute("select function_name from duckdb_functions()").fetchall()}
    assert names
    assert not names & built_in


def test_many_values_beyond_128_bits_are_converted():
    """Convert 5,000 values. A macro with nested lambdas would evaluate each value 65^3 times and not finish."""
    values = [2**130 * number + number for number in range(1, 5001)]
    with duckdb.connect() as connection:
        connection.execute(macros())
        connection.register("words", pa.table({"word": pa.array([value.to_bytes(32, "big") for value in values])}))
        texts = connection.execute(
            "select u256_text(u256_carry("
            "u256_limb(word, 0), u256_limb(word, 1), u256_limb(word, 2), u256_limb(word, 3))) from words"
        ).fetchall()
    assert [int(text) for (text,) in texts] == values
