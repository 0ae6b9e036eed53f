"""Which hex texts of a query become bytes, and how much work that takes."""

import duckdb
import pytest

from trace_dagster.query import hex_text
from trace_dagster.query.planner import planner
from trace_dagster.query.syntax import parse


@pytest.mark.parametrize("form", ["({})", "[{}]"])
def test_an_expression_is_written_once_however_many_texts_it_has(form, monkeypatch):
    written = []
    key = hex_text._key
    monkeypatch.setattr(hex_text, "_key", lambda node: written.append(len(found := key(node))) or found)
    connection = planner()
    connection.execute("create table t (h blob)")
    sizes = []
    for count in (100, 800):
        texts = ", ".join(f"'0x{number.to_bytes(32).hex()}'" for number in range(count))
        written.clear()
        found = hex_text.with_bytes(parse(f"select * from t where h in {form.format(texts)}", connection), connection)
        assert found.count("unhex(") == count
        sizes.append(sum(written))
    assert sizes[1] <= 10 * sizes[0]


TABLE = "create table t (h blob, g blob, s varchar, n bigint, l blob[], ls varchar[])"
ROWS = [
    (b"\xab", b"\xab", "0xab", 1, [b"\xab"], ["0xab"]),
    (b"\xcd", b"\xcd", "0xcd", 2, [b"\xcd"], ["0xcd"]),
]
EXISTS = "exists (select 1 from t u where u.h = '0xcd' and u.n = t.n)"
ONE = "(select count(*) from t u where u.h = '0xab')"
ANSWERS = [
    (f"select {ONE} from t group by {ONE}", [(1,)]),
    (f"select n, {EXISTS} from t order by {EXISTS} desc", [(2, True), (1, False)]),
    (f"select {EXISTS}, count(*) from t group by {EXISTS} order by 1", [(False, 1), (True, 1)]),
    ("select n in (select n from t where h = '0xab') from t group by n in (select n from t where h = '0xab')"
     " order by 1", [(False,), (True,)]),
    ("select n from t where h in ['0xab'] and s = ['0xab', '0xcd'][1]", [(1,)]),
    ("select n from t where h in ['0xab'] and ls = ['0xab']", [(1,)]),
    ("select n from t where h in ['0xab', '0xcd'] and ls <> ['0xab']", [(2,)]),
    ("select n from t where h in ['0xab'] and s = list_min(['0xab', '0xcd'])", [(1,)]),
    ("select 'x/' || ['0xab'][1] from t where h in ['0xab']", [("x/0xab",)]),
    ("select array_to_string(['0xab', '0xcd'], ',') from t where h in ['0xab']", [("0xab,0xcd",)]),
    ("select n from t where h = '0xab' and s::blob = '\\x30\\x78\\x61\\x62'::blob", [(1,)]),
    ("with x as materialized (select h as k from t) select k from x where k = '0xab'"
     " union all select s::blob from t where s = '0xab'", [(b"\xab",), (b"0xab",)]),
    ("select n from t where h in ['0xab'] and s in ['0xab']", [(1,)]),
    ("select n from t where h in ['0xab'] union all select n from t where s in ['0xcd']", [(1,), (2,)]),
    ("select n from t where h in ['0xab', null]", [(1,)]),
    ("select '\N{SNOWMAN}' || n from t where h in ['0xab']", [("\N{SNOWMAN}1",)]),
    ("select n from t where h in ['0xab'] or g in ['0xcd'] order by n", [(1,), (2,)]),
    ("select n from t where list_has_any(l, ['0xcd'])", [(2,)]),
    ("select [x for x in l if x in ['0xcd']] from t order by n", [([],), ([b"\xcd"],)]),
    ("select n from t where h = any(['0xcd'])", [(2,)]),
    ("select n from t where ['0xab'] @> [h]", [(1,)]),
    (f"select n from t where (h, n) in ((unhex('{'ab' * 20}'), 1), (unhex('ab'), 1))", [(1,)]),
    (f"select n from t where {{'a': h, 'b': n}} = {{'a': unhex('ab'), 'b': 1}} and s <> '{'ab' * 32}'", [(1,)]),
    ("with u as (select * from t where s = '0xab') select n from u where h = '0xab'", [(1,)]),
]  # fmt: skip
"""Queries where the same texts stand for bytes in one place and for themselves in another, and their rows."""


@pytest.mark.parametrize(("sql", "rows"), ANSWERS)
def test_a_text_means_its_bytes_where_a_binary_value_is_and_itself_elsewhere(sql, rows):
    planning = planner()
    planning.execute(TABLE)
    with duckdb.connect() as connection:
        connection.execute(TABLE)
        connection.executemany("insert into t values (?, ?, ?, ?, ?, ?)", ROWS)
        assert connection.execute(hex_text.with_bytes(parse(sql, planning), planning)).fetchall() == rows
