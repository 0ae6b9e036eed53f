"""One query of a user on its way from text to rows: parsed, checked, rewritten where needed, planned, run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from secrets import token_hex
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

from trace_dagster.errors import InvalidInput
from trace_dagster.query import pivot
from trace_dagster.query.binary_literals import with_unhex, without_unhex
from trace_dagster.query.column_sql import is_text_in_json, json_column_sql
from trace_dagster.query.gate import check
from trace_dagster.query.hex_text import bytes_shown, with_bytes
from trace_dagster.query.parameters import with_literals
from trace_dagster.query.plan import readable
from trace_dagster.query.planner import add_tables
from trace_dagster.query.protocol import MAX_SQL_BYTES, Columns, Tips
from trace_dagster.query.pruning import reads_of
from trace_dagster.query.result_rows import ResultRows
from trace_dagster.query.session import QuerySession
from trace_dagster.query.syntax import Node, Statement, objects, parse, text_of
from trace_dagster.query.tip_values import planned_statement, tip_subqueries
from trace_dagster.registry.conditions import Conditions, Reads, between

_SHORT = 8
"""The text of a value that is as short may be a part of something else in a name: it stays."""
_PLAN_COLUMNS = (("plan", "VARCHAR"),)


class UserStatement:
    """One SELECT from a user, checked. Raises InvalidInput when it is created if the gate refuses it."""

    def __init__(
        self,
        sql: str,
        shapes: Mapping[str, Columns],
        parser: duckdb.DuckDBPyConnection,
        literals: Mapping[str, str] | None = None,
    ) -> None:
        """``shapes`` are the tables that the query may read, with their columns; ``parser`` is a
        :func:`~trace_dagster.query.planner.planner`; ``literals`` are the parameters' values as SQL.
        """
        self._parser = parser
        self._shapes = shapes
        self._mark = f"values {token_hex(8)}"
        text = with_unhex(sql)
        given = with_literals(parsed(text, self._mark, parser, len(text) - len(sql)), literals or {}, parser)
        self._parameters = _shown_literals(literals or {}, parser)
        self._has_binary_literals = text != sql
        self._aliases = {node["alias"] for node in objects(given.tree) if node.get("alias")}
        self.relations = check(given.tree, shapes)
        """The names among ``shapes`` that the query reads."""
        queries = [query for _, query in self._value_queries(given.tree)]
        for query in queries:
            self._require_known(query)
        add_tables(self._named_shapes(), parser)
        text = with_bytes(given, parser)
        self._names = None if text == given.text else _column_names(given, parser)
        self._checked = given if text == given.text else self._check(given, text)
        self._is_one_query = not queries
        self._tips = [] if queries else tip_subqueries(self._checked.tree, self._named_shapes())

    def tips_wanted(self) -> list[str]:
        """Return the relations whose heads or last blocks :meth:`reads` can use."""
        return sorted({each.relation for each in self._tips})

    def reads(self, tips: Tips | None = None) -> dict[str, Reads]:
        """Return what the query needs of each relation that it reads, which must show the ``tips`` when it runs.

        The query that finds a PIVOT's values may need other rows than the PIVOT itself: then nothing is known.
        """
        found = self._reads_with(tips) if tips and self._tips else {}
        if not found and self._is_one_query:
            found = reads_of(self._checked.text, self._parser)
        return {name: found.get(name, Reads()) for name in sorted(self.relations)}

    def _reads_with(self, tips: Tips) -> dict[str, Reads]:
        """Return what is needed if subqueries have these values; nothing if they have none, or it cannot be planned."""
        planned = planned_statement(self._checked, self._tips, tips, self._named_shapes(), self._parser)
        if planned is None:
            return {}
        statement, last_blocks = planned
        found = reads_of(statement.text, self._parser)
        others = check(statement.tree, self._shapes)
        for name, block in last_blocks.items() if found else ():
            last = Reads((Conditions(blocks=between(block, block)),), frozenset({"block_number"}))
            found[name] = found.get(name, Reads()).united(last) if name in others else last
        return found

    def _named_shapes(self) -> dict[str, Columns]:
        return {name: self._shapes[name] for name in self.relations}

    def run(self, session: QuerySession) -> tuple[Columns, Iterator[list[tuple[Any, ...]]]]:
        """Run the query; return its columns and an iterator of row batches, which grow with the number of rows.

        Every text that runs was parsed and checked as a whole, also after it was rewritten.
        """
        statement = self._with_pivot_values(session)
        if statement.explain:
            session.select(f"{statement.explain} {statement.text}")
            return _PLAN_COLUMNS, iter([[(line,) for line in _plan_lines(session)]])
        if any(map(is_text_in_json, _kinds(statement, self._parser))):
            columns = session.select_shown(statement.text, json_column_sql)
        else:
            columns = session.select(statement.text)
        return self._named(columns), _batches(session)

    def rows(self, session: QuerySession, most: int) -> tuple[Columns, ResultRows]:
        """Return the columns of the query, and its rows, which are computed when they are read: the first ``most``, or
        all for 0.
        """
        statement = self._with_pivot_values(session)
        if statement.explain:
            session.select(f"{statement.explain} {statement.text}")
            relation = session.relation_of(pa.table({"plan": _plan_lines(session)}))
            return _PLAN_COLUMNS, ResultRows(relation.limit(most) if most else relation)
        relation = session.relation(statement.text)
        columns = [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]
        return self._named(columns), ResultRows(relation.limit(most) if most else relation)

    def _named(self, columns: Columns) -> Columns:
        """Return columns with the names that they have in the text as the user wrote it."""
        names = [name for name, _ in columns]
        if self._names is not None and len(self._names) == len(columns):
            names = self._names
        return [(self._with_parameters(name), kind) for name, (_, kind) in zip(names, columns, strict=True)]

    def _with_parameters(self, name: str) -> str:
        """Return the name of a column with ``$a`` in place of the parameter's value, and ``0xab`` as the user wrote it,
        unless the user chose the name.
        """
        if name in self._aliases:
            return name
        for shown, parameter in self._parameters:
            name = name.replace(shown, parameter)
        return without_unhex(name) if self._has_binary_literals else name

    def _with_pivot_values(self, session: QuerySession) -> Statement:
        statement = self._checked
        while found := next(self._value_queries(statement.tree), None):
            placeholder, query = found
            self._require_known(query)
            session.select(text_of(query, self._parser))
            values = [str(value) for value, *_ in session.fetch(pivot.MAX_VALUES + 1)]
            statement = self._check(statement, pivot.with_values(statement.text, placeholder, values))
        return statement

    def _value_queries(self, tree: Node) -> Iterator[tuple[str, Node]]:
        return pivot.value_queries(tree, self._mark, lambda sql: parse(sql, self._parser).tree)

    def _check(self, statement: Statement, text: str) -> Statement:
        """Parse and check the statement's new text."""
        again = parse(text, self._parser)
        self._require_known(again.tree)
        return Statement(text, again.tree, statement.explain)

    def _require_known(self, tree: Node) -> None:
        """Raise InvalidInput if a tree reads more than the user's own text does."""
        if not check(tree, self._shapes) <= self.relations:
            raise InvalidInput("the query cannot be rewritten: write its PIVOT with IN (...)")


def _plan_lines(session: QuerySession) -> list[str]:
    ((_, plan),) = session.fetch(2)
    return list(readable(json.loads(plan)))


def parsed(sql: str, mark: str, parser: duckdb.DuckDBPyConnection, added: int = 0) -> Statement:
    """Parse one SELECT; a PIVOT without values is one after it got placeholders. Raises InvalidInput as ``parse``.

    ``added`` bytes of the text are not the user's.
    """
    most = MAX_SQL_BYTES + added
    try:
        return parse(sql, parser, most)
    except InvalidInput:
        if "pivot" not in sql.lower() or (text := pivot.with_placeholders(sql, mark)) == sql:
            raise
        return parse(text, parser, most)


def _column_names(statement: Statement, planner: duckdb.DuckDBPyConnection) -> list[str] | None:
    """Return the names of the columns of the text as the user wrote it; None if it cannot be planned."""
    try:
        return list(planner.sql(statement.text).columns)
    except duckdb.Error:
        return None


def _shown_literals(literals: Mapping[str, str], planner: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Return the text of each parameter's value in the names of columns, and the parameter; the longest text first."""
    given = {name: literal for name, literal in literals.items() if literal != "NULL"}
    if not given:
        return []
    try:
        shown = planner.sql(f"select {', '.join(given.values())}").columns
    except duckdb.Error:  # the query fails in the same way, with its own text in the error
        return []
    found = {
        text: f"${name}"
        for text, name in zip(shown, given, strict=True)
        if len(text) > _SHORT and shown.count(text) == 1  # two of one value could not be told apart
    }
    as_bytes = {bytes_shown(text): name for text, name in found.items()}
    return sorted((as_bytes | found).items(), key=lambda pair: -len(pair[0]))


def _kinds(statement: Statement, planner: duckdb.DuckDBPyConnection) -> list[DuckDBPyType]:
    """Return the types of the columns; none if it cannot be planned."""
    try:
        return planner.sql(statement.text).types
    except duckdb.Error:
        return []


def _batches(session: QuerySession) -> Iterator[list[tuple[Any, ...]]]:
    most = 1
    while rows := session.fetch(most):
        yield rows
        most = min(2 * most, 256)
