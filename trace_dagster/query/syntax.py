"""Parses SQL from users with DuckDB's own parser, without running or expanding any of it.

``json_serialize_sql`` takes the text as a value. It accepts SELECT statements only, and it does not expand pragmas, so
the tree that it returns is the statement that runs. ``extract_statements`` would evaluate a pragma's argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.protocol import MAX_SQL_BYTES, MAX_TEXT_BYTES

Node = dict[str, Any]
"""An object of DuckDB's syntax tree."""

MAX_DEPTH = 200
"""Deepest nesting of expressions. Python's JSON reader and DuckDB's parser both recurse this deep without an error."""
HARDENED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "max_expression_depth": str(MAX_DEPTH),
}
"""Settings of every connection that sees SQL from users."""

_EXPLAIN = re.compile(
    r"(?>(?>\s+|--[^\n]*(?:\n|\Z)|/\*(?>[^*]+|\*(?!/))*\*/)*)explain\b(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
"""EXPLAIN after blanks and comments. Its groups are atomic: many comments take linear time."""
_ANALYZE = re.compile(r"\s*(?:analy[sz]e\b|\(\s*analy[sz]e\s*\))(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_NO_STATEMENT = "a query is exactly one SELECT"


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT: its text, its tree, and the form of EXPLAIN if its plan was requested instead of its rows."""

    text: str
    tree: Node
    explain: str = ""
    """``explain``, ``explain analyze``, or an empty text."""


def parse(sql: str, connection: duckdb.DuckDBPyConnection, most_bytes: int = MAX_TEXT_BYTES) -> Statement:
    """Parse one SELECT, EXPLAIN SELECT or EXPLAIN ANALYZE SELECT. ``connection`` only parses.

    DESCRIBE, SUMMARIZE, SHOW, TABLE, VALUES and PIVOT with a list of values are SELECTs to DuckDB. Raises InvalidInput
    for any other statement, for more than one, and for text that is too long, too deep or not valid SQL. The text may
    be longer than a user's when it has the values of parameters.
    """
    try:
        size = len(sql.encode())
    except UnicodeError:
        raise InvalidInput("a query must be valid Unicode text") from None
    if size > most_bytes:
        raise InvalidInput(f"a query is at most {MAX_SQL_BYTES} bytes, and {MAX_TEXT_BYTES} with its parameters")
    if "\0" in sql:  # DuckDB's parser would stop there
        raise InvalidInput("a query may not contain a NUL character")
    try:
        return Statement(sql, _tree(sql, connection))
    except InvalidInput:
        if (explain := _EXPLAIN.match(sql)) is None:
            raise
    analyze = _ANALYZE.match(explain["rest"])
    rest = analyze["rest"] if analyze else explain["rest"]
    return Statement(rest, _tree(rest, connection), "explain analyze" if analyze else "explain")


def text_of(tree: Node, connection: duckdb.DuckDBPyConnection) -> str:
    """Return SQL whose tree is ``tree``. Raises InvalidInput if DuckDB writes SQL that it reads differently."""
    tree = _exact_doubles(tree)
    try:
        row = connection.execute("select json_deserialize_sql(?)", [json.dumps(tree)]).fetchone()
        text = str(row[0]) if row else ""
        again = _tree(text, connection)
    except duckdb.Error as error:
        raise InvalidInput(f"the query cannot be rewritten: {first_line(error)}") from None
    if without_places(again) != without_places(tree):
        raise InvalidInput("the query cannot be rewritten: write binary values as 0xab12, without quotes")
    return text


def objects(tree: Any) -> Iterator[Node]:
    """Yield every object of a tree, without recursion."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            yield node
            waiting.extend(node.values())


def node_type(node: Node) -> str | None:
    """Return the node's type, or None. In constants the key ``type`` contains a data type, which is an object."""
    kind = node.get("type")
    return kind if isinstance(kind, str) else None


def text_constant(node: Node) -> str | None:
    """Return the text of a VARCHAR constant, or None for any other node."""
    if node.get("class") != "CONSTANT":
        return None
    value = node.get("value") or {}
    is_text = not value.get("is_null") and (value.get("type") or {}).get("id") == "VARCHAR"
    return str(value["value"]) if is_text else None


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, at most 300 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _tree(sql: str, connection: duckdb.DuckDBPyConnection) -> Node:
    try:
        row = connection.execute("select json_serialize_sql(?)", [sql]).fetchone()
    except duckdb.Error as error:
        raise InvalidInput(f"not valid SQL: {first_line(error)}") from None
    try:
        tree: Node = json.loads(row[0]) if row else {"error": True}
    except RecursionError:
        raise InvalidInput("the query is nested too deeply") from None
    if tree.get("error"):
        message = str(tree.get("error_message", "nothing to run"))
        if tree.get("error_type") == "parser":
            raise InvalidInput(f"not valid SQL: {message[:300]}")
        raise InvalidInput(_NO_STATEMENT)
    if len(tree.get("statements", ())) != 1:
        raise InvalidInput(_NO_STATEMENT)
    return tree


def _exact_doubles(tree: Any) -> Any:
    """Return a tree whose DOUBLE constants are casts of text: DuckDB writes 1e9 as 1000000000.0, which is a DECIMAL."""
    if isinstance(tree, list):
        return [_exact_doubles(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    value = tree.get("value")
    if tree.get("class") == "CONSTANT" and isinstance(value, dict) and value["type"]["id"] == "DOUBLE":
        text = {"type": {"id": "VARCHAR", "type_info": None}, "is_null": False, "value": repr(value["value"])}
        return {
            **{key: tree[key] for key in ("alias", "query_location")},
            "class": "CAST",
            "type": "OPERATOR_CAST",
            "child": {**tree, "alias": "", "value": text},
            "cast_type": value["type"],
            "try_cast": False,
        }
    return {key: _exact_doubles(each) for key, each in tree.items()}


def without_places(tree: Any) -> Any:
    """Return a tree without the positions of its nodes in the text, and with one form for VALUES."""
    if isinstance(tree, list):
        return [without_places(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if (values := _rewritten_values(tree)) is not None:
        return without_places(values)
    return {key: without_places(value) for key, value in tree.items() if key != "query_location"}


def _rewritten_values(node: Node) -> Node | None:
    """Return the VALUES list of a node that is exactly ``(SELECT * FROM (VALUES ...))``, as DuckDB writes VALUES."""
    if node_type(node) != "SUBQUERY" or node.get("alias") != "valueslist":
        return None
    select = node["subquery"]["node"]
    inner = select.get("from_table") or {}
    is_whole = [node_type(each) for each in select.get("select_list") or ()] == ["STAR"]
    parts = ("where_clause", "group_expressions", "having", "sample", "qualify", "modifiers")
    is_plain = is_whole and not any(select.get(part) for part in parts)
    return inner if is_plain and inner.get("alias") == "valueslist" else None
