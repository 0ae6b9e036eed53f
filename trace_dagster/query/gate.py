"""Checks SQL from users: a single SELECT over the offered tables that calls only allowed functions.

DuckDB parses the SQL, and the gate walks the syntax tree. It accepts only node types, tables and functions on its
lists, so a new DuckDB feature is refused until it is added. ``functions.txt`` lists the allowed functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput

MAX_SQL_BYTES = 100_000
"""Longest query, in bytes of UTF-8."""
_MAX_DEPTH = 200
"""Deepest nesting of expressions. Python's JSON reader and DuckDB's parser both recurse this deep without an error."""

_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
_TABLE_NODES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "EXPRESSION_LIST", "EMPTY", "TABLE_FUNCTION", "COLUMN_DATA", "PIVOT"}
)
_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})


@cache
def allowed_functions() -> frozenset[str]:
    """Return the names of the scalar and aggregate functions that a query may call."""
    return frozenset(files(__package__).joinpath("functions.txt").read_text().split())


def check(sql: str, tables: Iterable[str]) -> None:
    """Raise InvalidInput, with a message of one line, unless ``sql`` is an allowed SELECT over ``tables``.

    ``tables`` are names as in SQL, in any case: ``blocks`` or ``chain_1.blocks``.
    """
    known = frozenset(tuple(name.lower().split(".")) for name in tables)
    for node, ctes in _nodes(_parse(sql)):
        _check_node(node, known, ctes)


def _parse(sql: str) -> dict[str, Any]:
    try:
        size = len(sql.encode())
    except UnicodeError:
        raise InvalidInput("a query must be valid Unicode text") from None
    if size > MAX_SQL_BYTES:
        raise InvalidInput(f"a query is at most {MAX_SQL_BYTES} bytes")
    try:
        with duckdb.connect(config={"max_expression_depth": _MAX_DEPTH}) as connection:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InvalidInput("a query is exactly one SELECT")
            row = connection.execute("select json_serialize_sql(?)", [statements[0].query]).fetchone()
    except duckdb.Error as error:
        raise InvalidInput(f"not valid SQL: {_first_line(error)}") from None
    tree: dict[str, Any] = _loads(row[0]) if row else {"error": True}
    if tree.get("error") or len(tree.get("statements", ())) != 1:
        raise InvalidInput(f"a query is exactly one SELECT: {tree.get('error_message', 'nothing to run')}")
    return tree


def _loads(text: str) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(text)
    except RecursionError:
        raise InvalidInput("the query is nested too deeply") from None
    return tree


def _nodes(tree: Any) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Yield every object of the tree, with the lower-case CTE names that are in scope there.

    A CTE can refer to the CTEs before it. It can refer to itself only in the right arm of a recursive CTE. Outside
    of its scope DuckDB looks a CTE's name up in the catalog or opens it as a file, so the gate must not accept it.
    """
    waiting: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while waiting:
        node, scope = waiting.pop()
        if isinstance(node, list):
            waiting.extend((value, scope) for value in node)
        elif isinstance(node, dict):
            for entry in (node.get("cte_map") or {}).get("map", ()):
                waiting.append((entry["value"], scope))
                scope |= {str(entry["key"]).lower()}
            yield node, scope
            inside = scope | {str(node.get("cte_name")).lower()} if _kind(node) == "RECURSIVE_CTE_NODE" else scope
            waiting.extend((_inner(node, key), inside if key == "right" else scope) for key in node if key != "cte_map")


def _inner(node: dict[str, Any], key: str) -> Any:
    """Return the value of a key. For a table function, return only its parts, because its name has its own list."""
    value = node[key]
    if key == "function" and _kind(node) == "TABLE_FUNCTION" and isinstance(value, dict):
        return list(value.values())
    return value


def _check_node(node: dict[str, Any], tables: frozenset[tuple[str, ...]], ctes: frozenset[str]) -> None:
    kind = _kind(node)
    if "query_location" in node and "class" not in node and "alias" in node and kind not in _TABLE_NODES:
        raise InvalidInput(f"a query may not use {str(kind).lower()}")
    if "cte_map" in node and kind not in _QUERY_NODES:
        raise InvalidInput(f"a query may not use {str(kind).lower()}")
    if kind == "BASE_TABLE":
        _check_table(node, tables, ctes)
    elif kind == "TABLE_FUNCTION":
        name = str((node.get("function") or {}).get("function_name")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise InvalidInput(f"a query may not read from {name}()")
    elif node.get("function_name") is not None:
        name = str(node["function_name"]).lower()
        if name not in allowed_functions():
            raise InvalidInput(f"function {name}() is not on the list of allowed functions")
    if node.get("at_clause"):
        raise InvalidInput("a query may not use AT")


def _kind(node: dict[str, Any]) -> str | None:
    """Return the node's type, or None. In constants the key ``type`` contains a data type, which is an object."""
    kind = node.get("type")
    return kind if isinstance(kind, str) else None


def _check_table(node: dict[str, Any], tables: frozenset[tuple[str, ...]], ctes: frozenset[str]) -> None:
    given = (str(node.get(part) or "") for part in ("catalog_name", "schema_name", "table_name"))
    parts = tuple(part.lower() for part in given if part)
    if parts in tables or (len(parts) == 1 and parts[0] in ctes):
        return
    shown = ", ".join(sorted(".".join(name) for name in tables)) or "none yet"
    raise InvalidInput(f"no table is called {'.'.join(parts)[:80]!r}; there are: {shown}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
