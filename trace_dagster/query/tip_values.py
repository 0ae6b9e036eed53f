"""Subqueries over heads, and over the last block of dataset blocks: their values, for the plan that prunes.

``block_number > (select max(block_number) from blocks) - 100`` compares with no constant, so nothing could be left out.
But what this subquery returns is known before any row is read. In the text that is planned, its value stands in its
place. The text that runs keeps the subquery, over the same heads and blocks, so both texts have the same answer.

A subquery gets a value only if it cannot depend on anything else: it is one aggregate or row of one relation, made of
columns of that relation, constants, and functions of a short list. All others stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.gate import folded
from trace_dagster.query.heads_relation import HEADS_COLUMNS
from trace_dagster.query.planner import add_tables
from trace_dagster.query.protocol import Columns, Tips
from trace_dagster.query.syntax import Node, Statement, node_type, objects, parse, quoted, text_of

_CONDITIONS = frozenset({"where_clause", "condition", "having", "qualify"})
"""Keys of a tree below which an expression's text gives no column a name."""
_EXPRESSIONS = frozenset(
    {"BETWEEN", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR"}
)
_FUNCTIONS = frozenset({"max", "min", "+", "-", "*", "//", "%", "greatest", "least"})
_TYPES = frozenset({"INTEGER", "BIGINT", "HUGEINT", "BLOB", "TIMESTAMP WITH TIME ZONE"})
"""Types whose values are exact as texts. ``block_number`` and its like are compared with them."""
_BLOCK = "block_number"
_NOTHING_ELSE = ("group_expressions", "group_sets", "having", "sample", "qualify", "modifiers")


@dataclass(frozen=True, slots=True)
class TipSubquery:
    """A scalar subquery that reads heads, or the last block of a relation."""

    node: Node
    """The object in the tree of its statement."""
    relation: str


def tip_subqueries(tree: Node, shapes: Mapping[str, Columns]) -> list[TipSubquery]:
    """Return the subqueries of a checked tree that have a value, if heads and last blocks are known."""
    found = [node for node in _in_conditions(tree) if node_type(node) == "SUBQUERY"]
    if not found:
        return []
    known = {tuple(folded(name).split(".")): name for name in shapes}
    for cte in _cte_names(tree):
        known.pop((cte,), None)  # what such a name means depends on the place
    each = (TipSubquery(node, name) for node in found if (name := _relation(node, known)) is not None)
    return [subquery for subquery in each if _is_known(subquery, shapes[subquery.relation])]


def planned_statement(
    statement: Statement,
    subqueries: Sequence[TipSubquery],
    tips: Tips,
    shapes: Mapping[str, Columns],
    planner: duckdb.DuckDBPyConnection,
) -> tuple[Statement, dict[str, int]] | None:
    """Return the statement with values instead of subqueries, and the last block by relation that they stand for.

    The text that runs needs the rows of these blocks, too. Return None if no subquery has a value. ``planner`` has the
    tables of the query, empty; so it has them afterwards.
    """
    values = _values(subqueries, tips, shapes, planner)
    if not values:
        return None
    tree = _replaced(statement.tree, values)
    try:
        text = text_of(tree, planner)
    except InvalidInput:
        return None
    used = {each.relation for each in subqueries if id(each.node) in values}
    return Statement(text, tree), {name: block for name, block in tips.last_blocks.items() if name in used}


def _in_conditions(tree: Any) -> Iterator[Node]:
    """Yield every object below a condition, without those of queries below it, unless it is in a condition of these."""
    waiting = [(tree, False)]
    while waiting:
        node, is_condition = waiting.pop()
        if isinstance(node, list):
            waiting.extend((each, is_condition) for each in node)
        elif isinstance(node, dict):
            if is_condition:
                yield node
            inside = is_condition and "select_list" not in node
            waiting.extend((value, inside or key in _CONDITIONS) for key, value in node.items())


def _cte_names(tree: Node) -> set[str]:
    found = set()
    for node in objects(tree):
        found |= {folded(str(entry["key"])) for entry in (node.get("cte_map") or {}).get("map", ())}
        if "cte_name" in node:
            found.add(folded(str(node["cte_name"])))
    return found


def _relation(node: Node, known: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the relation that a scalar subquery reads, if that is its only one."""
    select = (node.get("subquery") or {}).get("node") or {}
    table = select.get("from_table") or {}
    if node.get("subquery_type") != "SCALAR" or node_type(select) != "SELECT_NODE":
        return None
    if any(select.get(part) for part in _NOTHING_ELSE) or select["cte_map"]["map"] or len(select["select_list"]) != 1:
        return None
    if select["aggregate_handling"] != "STANDARD_HANDLING" or node_type(table) != "BASE_TABLE":
        return None
    if any(table[part] for part in ("sample", "column_name_alias", "at_clause", "catalog_name")):
        return None
    return known.get(tuple(folded(part) for part in (table["schema_name"], table["table_name"]) if part))


def _is_known(subquery: TipSubquery, columns: Columns) -> bool:
    """Return whether the subquery is made of the relation's columns only and, unless these are heads, of its last block
    only.
    """
    select = subquery.node["subquery"]["node"]
    table, where = select["from_table"], select["where_clause"]
    here = _Scope(folded(table["alias"] or table["table_name"]), frozenset(folded(name) for name, _ in columns))
    if [tuple(column) for column in columns] == [*HEADS_COLUMNS]:
        return all(here.has_all(each) for each in (*select["select_list"], *([where] if where else [])))
    return where is None and here.has_last_block(select["select_list"][0])


@dataclass(frozen=True, slots=True)
class _Scope:
    """The one table that an expression may read."""

    table: str
    columns: frozenset[str]

    def has_all(self, expression: Node) -> bool:
        """Return whether an expression reads columns of the table only, and calls functions of the list only."""
        return all(self._is_allowed(node) for node in _expressions(expression))

    def has_last_block(self, expression: Node) -> bool:
        """Return whether an expression reads ``max(block_number)`` only."""
        nodes = list(_expressions(expression))
        columns = [node for node in nodes if node["class"] == "COLUMN_REF"]
        largest = [id(node["children"][0]) for node in nodes if self._is_max_of_block(node)]
        return bool(columns) and self.has_all(expression) and {id(node) for node in columns} == {*largest}

    def _is_allowed(self, node: Node) -> bool:
        if node["class"] == "COLUMN_REF":
            *table, column = (folded(str(part)) for part in node["column_names"])
            return column in self.columns and table in ([], [self.table])
        if node["class"] == "FUNCTION":
            return folded(str(node["function_name"])) in _FUNCTIONS and not node["schema"] and not node["catalog"]
        return node["class"] in _EXPRESSIONS

    def _is_max_of_block(self, node: Node) -> bool:
        if node["class"] != "FUNCTION" or folded(str(node["function_name"])) != "max" or len(node["children"]) != 1:
            return False
        (column,) = node["children"]
        is_block = column["class"] == "COLUMN_REF" and folded(str(column["column_names"][-1])) == _BLOCK
        return is_block and not node["filter"]


def _expressions(tree: Node) -> Iterator[Node]:
    return (node for node in objects(tree) if "class" in node)


def _values(
    subqueries: Iterable[TipSubquery], tips: Tips, shapes: Mapping[str, Columns], planner: duckdb.DuckDBPyConnection
) -> dict[int, Node]:
    """Return the value of each subquery that has one, by the identity of its node."""
    filled = {each.relation: shapes[each.relation] for each in subqueries if _fill(each.relation, tips, planner)}
    if not filled:
        return {}
    try:
        found = {id(each.node): _value(each.node, planner) for each in subqueries if each.relation in filled}
    finally:
        add_tables(filled, planner)
    return {at: value for at, value in found.items() if value is not None}


def _fill(relation: str, tips: Tips, planner: duckdb.DuckDBPyConnection) -> bool:
    """Give a table the rows that its subqueries can need. Return whether they are known."""
    schema, _, table = relation.rpartition(".")
    name = f"{quoted(schema or 'main')}.{quoted(table)}"
    planner.execute(f"delete from {name}")  # noqa: S608  (a quoted name)
    for row in tips.heads.get(relation, ()):
        planner.execute(f"insert into {name} select $1, $2, $3, $4, unhex($5), $6::timestamptz", row)
    if relation in tips.last_blocks:
        planner.execute(f"insert into {name} (block_number) values ($1)", [tips.last_blocks[relation]])  # noqa: S608
    return relation in tips.heads or relation in tips.last_blocks


def _value(node: Node, planner: duckdb.DuckDBPyConnection) -> Node | None:
    """Return the value of a subquery as a constant; None if it fails, is null, or has another type or many rows."""
    try:
        text = text_of({"error": False, "statements": [node["subquery"]]}, planner).rstrip("; ")
        rows = planner.execute(f"select typeof(v), v::varchar from ({text}) as found(v)").fetchmany(2)  # noqa: S608
    except (duckdb.Error, InvalidInput):
        return None
    if len(rows) != 1 or rows[0][0] not in _TYPES or rows[0][1] is None:
        return None
    kind, value = rows[0]
    literal = "'" + value.replace("'", "''") + "'"
    constant = parse(f"select cast({literal} as {kind})", planner).tree["statements"][0]["node"]["select_list"][0]
    return {**constant, "alias": node["alias"]}


def _replaced(tree: Any, values: Mapping[int, Node]) -> Any:
    if isinstance(tree, list):
        return [_replaced(each, values) for each in tree]
    if not isinstance(tree, dict):
        return tree
    return values[id(tree)] if id(tree) in values else {key: _replaced(each, values) for key, each in tree.items()}
