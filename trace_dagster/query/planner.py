"""A connection that parses and plans queries over empty tables. It opens no file. Of a user's query it runs nothing but
subqueries over heads and a last block (``tip_values.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from trace_dagster.query.protocol import Columns
from trace_dagster.query.pruning import move_filters_only
from trace_dagster.query.syntax import HARDENED, quoted


def planner() -> duckdb.DuckDBPyConnection:
    """Return a connection without tables: no files, no network, no extensions, little memory."""
    return ready_planner(prepared_planner())


def prepared_planner() -> duckdb.DuckDBPyConnection:
    """Return what :func:`ready_planner` needs. It starts no thread."""
    connection = duckdb.connect(config={**HARDENED, "memory_limit": "256MiB", "threads": "1"})
    move_filters_only(connection)
    return connection


def ready_planner(prepared: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Return a planner. Of two processes forked with one ``prepared``, each has random numbers of its own."""
    connection = prepared.cursor()
    for setting in (
        "TimeZone = 'UTC'",
        "temp_directory = ''",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"set {setting}")
    return connection


def add_tables(shapes: Mapping[str, Columns], connection: duckdb.DuckDBPyConnection) -> None:
    """Create an empty table for each relation. Tables of an earlier query with the same name are replaced."""
    for name, columns in shapes.items():
        schema, _, table = name.rpartition(".")
        if schema:
            connection.execute(f"create schema if not exists {quoted(schema)}")
        body = ", ".join(f"{quoted(column)} {kind}" for column, kind in columns)
        connection.execute(f"create or replace table {quoted(schema or 'main')}.{quoted(table)} ({body})")
