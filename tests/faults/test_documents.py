"""Compares the documentation's statements about the database with the database, and its promises with the tests."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.support.schema import FILE, HEADER, dump
from trace_dagster.lite.postgres import dsn

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "state_machine.md").read_text()


@pytest.mark.parametrize(
    ("table", "column"), [("tasks", "state"), ("attempts", "state"), ("jobs", "mode"), ("outbox", "kind")]
)
def test_the_documented_states_are_those_of_the_constraint(postgres_url, table, column):
    with psycopg.connect(postgres_url) as connection:
        (definition,) = connection.execute(
            "select pg_get_constraintdef(oid) from pg_constraint where conname = %s and conrelid = %s::regclass",
            (f"{table}_{column}_check", f"trace.{table}"),
        ).fetchone()
    constrained = set(re.findall(r"'([a-z_]+)'", definition))
    section = re.search(rf"\(`trace\.{table}\.{column}`\).*?(?:\n\n|\Z)", PAGE, re.DOTALL)[0]
    documented = set(re.findall(r"`([a-z_]+)`", section))
    assert documented == constrained


def test_the_schema_file_is_the_sum_of_the_migrations(postgres, postgres_url):
    """Check that `docs/schema.sql`, which people read, creates the same schema as the migrations."""
    written = FILE.read_text().removeprefix(HEADER)
    assert dump(postgres_url) == written, "run `make schema`"
    port, password = postgres
    name = f"s{uuid4().hex}"
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
        try:
            with psycopg.connect(dsn(port, password, name)) as fresh:
                fresh.execute("create extension btree_gist")
                fresh.execute(written)
            assert dump(dsn(port, password, name)) == written
        finally:
            connection.execute(f"drop database {name} with (force)")


def test_every_promise_names_tests_that_exist():
    """Check that the tests that docs/promises.md names exist."""
    table = (ROOT / "docs" / "promises.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?(?:::(\w+))?`", table)
    assert len(named) >= 20
    for path, *names in named:
        source = (ROOT / path).read_text()
        for name in filter(None, names):
            assert re.search(rf"^\s*(?:def|class) {name}\b", source, re.MULTILINE), f"{path} has no {name}"
