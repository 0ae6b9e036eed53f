"""One query of a user on its way from text to rows: parsed, checked, rewritten where needed, run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query import pivot
from trace_dagster.query.gate import check
from trace_dagster.query.hex_text import empty_tables, read_as_bytes
from trace_dagster.query.plan import readable
from trace_dagster.query.protocol import Columns
from trace_dagster.query.session import QuerySession
from trace_dagster.query.syntax import Node, Statement, parse, text_of


class UserStatement:
    """One SELECT from a user, checked. Raises InvalidInput when it is created if the gate refuses it."""

    def __init__(self, sql: str, shapes: Mapping[str, Columns], parser: duckdb.DuckDBPyConnection) -> None:
        """``shapes`` are the tables that the query may read, with their columns; ``parser`` only parses."""
        self._parser = parser
        self._given = parsed(sql, parser)
        self.relations = check(self._given.tree, shapes)
        """The names among ``shapes`` that the query reads."""
        with empty_tables({name: shapes[name] for name in self.relations}) as planner:
            self._is_rewritten = read_as_bytes(self._given.tree, planner, parser)

    def run(self, session: QuerySession) -> tuple[Columns, Iterator[list[tuple[Any, ...]]]]:
        """Run the query; return its columns and an iterator of row batches, which grow with the size of the rows.

        What runs is the text that was checked, or SQL whose tree is the rewritten tree.
        """

        def rows(tree: Node) -> list[tuple[Any, ...]]:
            session.select(text_of(tree, self._parser))
            return session.fetch(pivot.MAX_VALUES + 1)

        is_filled = pivot.fill(self._given.tree, rows, lambda sql: parse(sql, self._parser).tree)
        text = self._given.text
        if self._is_rewritten or is_filled:
            text = text_of(self._given.tree, self._parser)
        columns = session.select(f"{self._given.explain} {text}")
        if self._given.explain:
            ((_, plan),) = session.fetch(2)
            return (("plan", "VARCHAR"),), iter([[(line,) for line in readable(json.loads(plan))]])
        return columns, _batches(session)


def parsed(sql: str, parser: duckdb.DuckDBPyConnection) -> Statement:
    """Parse one SELECT; a PIVOT without values is one after it got placeholders. Raises InvalidInput as ``parse``."""
    try:
        return parse(sql, parser)
    except InvalidInput:
        if "pivot" not in sql.lower() or (text := pivot.with_placeholders(sql)) == sql:
            raise
        return parse(text, parser)


def _batches(session: QuerySession) -> Iterator[list[tuple[Any, ...]]]:
    most = 1
    while rows := session.fetch(most):
        yield rows
        most = min(2 * most, 256)
