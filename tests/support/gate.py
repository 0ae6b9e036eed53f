"""The gate as a query's process uses it: parsed text, then the check of its tree."""

from __future__ import annotations

from collections.abc import Iterable

from trace_dagster.query import gate
from trace_dagster.query.planner import planner
from trace_dagster.query.statement import parsed


def check(sql: str, tables: Iterable[str]) -> frozenset[str]:
    """Return the names among ``tables`` that the SQL reads. Raises InvalidInput if the gate refuses it."""
    with planner() as connection:
        return gate.check(parsed(sql, "values of a test", connection).tree, tables)
