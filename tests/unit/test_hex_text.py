"""Hex texts that are compared with binary columns: what their rewriting costs."""

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
