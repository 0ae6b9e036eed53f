"""Which parts of a query are binary literals, and which only look like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.errors import InvalidInput
from trace_dagster.query.binary_literals import with_unhex, without_unhex

LITERALS = {
    "select 0xab": "select unhex('ab')",
    "select 0Xab::varchar": "select unhex('ab')::varchar",
    "select X'ab', x'CD'": "select unhex('ab'), unhex('CD')",
    "select 0x, x''": "select unhex(''), unhex('')",
    "select * from t where h=0xab/*c*/or h in(0xcd,-0xef)--0xab": (
        "select * from t where h=unhex('ab')/*c*/or h in(unhex('cd'),-unhex('ef'))--0xab"
    ),
    "select '\N{SNOWMAN}', 0xab": "select '\N{SNOWMAN}', unhex('ab')",
    "select 0xab\N{NO-BREAK SPACE}, 0xcd\r\n": "select unhex('ab')\N{NO-BREAK SPACE}, unhex('cd')\r\n",
}


@pytest.mark.parametrize("sql", LITERALS)
def test_a_literal_becomes_bytes(sql):
    assert with_unhex(sql) == LITERALS[sql]


@pytest.mark.parametrize(
    "sql",
    [
        "select $a$ 0xab x'ab' $a$ /* /* */ 0xab */",
        "select '0xab', 'x''ab', $$0xab$$, E'\\'0xab'",
        'select "0xab", "x\'ab\'", t.x0xab',
        "/* 0xab */ select 1 -- x'ab'",
        "select 10xab, 1.0xab, .0xab, 0 xab, 0xab_c, 0xab$, 0xyz, 0xab\N{SNOWMAN}",
        "select ax'ab', b'01'",
        "x'",
        "select '\ud800', 0xab",
        "",
    ],
)
def test_what_only_looks_like_one_stays(sql):
    assert with_unhex(sql) == sql


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select 0xabc", "the binary literal 0xabc has an odd number of hex digits"),
        ("select x'a'", "the binary literal x'a' has an odd number of hex digits"),
        ("select X'0xab'", "the binary literal X'0xab' has characters that are no hex digits"),
        ("select X'ab cd'", "the binary literal X'ab cd' has characters that are no hex digits"),
    ],
)
def test_a_wrong_one_is_told(sql, told):
    with pytest.raises(InvalidInput) as failed:
        with_unhex(sql)
    assert str(failed.value) == told


PARTS = ["'0xab'", "-- 0xab\n", "/* x'ab' */", '"0xab"', "0", "x", "a", "1", "(", ",", "\N{SNOWMAN}"]


@given(st.lists(st.sampled_from(PARTS)).map(" ".join), st.binary())
def test_only_the_literal_changes_whatever_stands_before_it(before, value):
    assert with_unhex(f"{before} ,0x{value.hex()}") == f"{before} ,unhex('{value.hex()}')"


def test_names_show_the_literal_again():
    assert without_unhex("(h = unhex('ab'))") == "(h = 0xab)"
    assert without_unhex("unhex(x)") == "unhex(x)"
