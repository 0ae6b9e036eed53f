"""Named statements: each has a description and a unique name, and the code uses it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import trace_dagster
from trace_dagster.registry.queries import parse, queries, query

PACKAGE = Path(trace_dagster.__file__).parent
USE = re.compile(r"\.(?:run|one|all|many)\(\s*\"([a-z_]+)\"|query\(\s*\"([a-z_]+)\"")


def sources() -> list[str]:
    return [path.read_text() for path in PACKAGE.rglob("*.py")]


def test_every_use_has_a_statement():
    used = {name for text in sources() for pair in USE.findall(text) for name in pair if name}
    assert len(used) > 80
    assert used <= set(queries())


def test_every_statement_is_used():
    constants = {
        node.value
        for text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(queries()) - constants == set()


def test_a_statement_keeps_its_description():
    assert query("all_jobs").startswith("-- Every job of an organisation, by name.\nselect ")


@pytest.mark.parametrize(
    "text",
    [
        "-- name: one\nselect 1;",
        "-- name: one\n\n-- Described too late.\nselect 1;",
        "-- name: one\n-- not a sentence\nselect 1;",
        "-- name: one\n-- Described.\nselect 1;\n-- name: two\nselect 2;",
    ],
)
def test_a_statement_without_description_is_refused(text):
    with pytest.raises(ValueError, match="has no description"):
        parse(text, "some.sql")


def test_text_above_the_first_name_is_refused():
    with pytest.raises(ValueError, match="before its first name"):
        parse("-- About nothing.\n-- name: one\n-- Described.\nselect 1;", "some.sql")
