"""Checks the syntax tree of SQL from users: only the offered tables, and only allowed functions.

The gate accepts only node types, tables and functions on its lists, so a new DuckDB feature is refused until it is
added. ``functions.txt`` lists the allowed functions.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from trace_dagster.errors import InvalidInput
from trace_dagster.query.syntax import Node, node_type, text_constant

_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree"})
_TABLE_NODES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "EXPRESSION_LIST", "EMPTY", "TABLE_FUNCTION", "COLUMN_DATA", "PIVOT", "SHOW_REF"}
)
_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_CATALOG = frozenset({("information_schema", "tables"), ("information_schema", "columns")})
"""DuckDB's own tables that a query may read: in a session they list the session's relations."""
_SHOWN = frozenset({'"tables"', "__show_tables_expanded"})
"""SHOW TABLES and SHOW ALL TABLES, as DuckDB's tree names them."""
_READABLE_SETTINGS = (["timezone"],)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@cache
def allowed_functions() -> frozenset[str]:
    """Return the folded names of the scalar and aggregate functions that a query may call."""
    return frozenset(map(folded, files(__package__).joinpath("functions.txt").read_text().split()))


def check(tree: Node, tables: Iterable[str]) -> frozenset[str]:
    """Return the names among ``tables`` that the tree reads.

    ``tables`` are names as in SQL, in any case: ``blocks`` or ``chain_1.blocks``. Raises InvalidInput, with a message
    of one line, if the tree reads anything else or calls a function that is not allowed.
    """
    known = {tuple(folded(name).split(".")): name for name in tables}
    found = [_check_node(node, known, ctes) for node, ctes in _nodes(tree)]
    return frozenset(name for name in found if name is not None)


def folded(name: str) -> str:
    """Return a name as DuckDB compares it: only ASCII letters have a lower case. ``str.lower`` folds more."""
    return name.translate(_LOWER)


def _nodes(tree: Any) -> Iterator[tuple[Node, frozenset[str]]]:
    """Yield every object of the tree, with the folded CTE names that are in scope there.

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
                scope |= {folded(str(entry["key"]))}
            yield node, scope
            is_recursive = node_type(node) == "RECURSIVE_CTE_NODE"
            inside = scope | {folded(str(node.get("cte_name")))} if is_recursive else scope
            waiting.extend((_inner(node, key), inside if key == "right" else scope) for key in node if key != "cte_map")


def _inner(node: Node, key: str) -> Any:
    """Return the value of a key. For a table function, return only its parts, because its name has its own list."""
    value = node[key]
    if key == "function" and node_type(node) == "TABLE_FUNCTION" and isinstance(value, dict):
        return list(value.values())
    return value


def _check_node(node: Node, tables: dict[tuple[str, ...], str], ctes: frozenset[str]) -> str | None:
    """Return the offered table that the node reads, or None. Raises InvalidInput if the node is not allowed."""
    kind = node_type(node)
    if "query_location" in node and "class" not in node and "alias" in node and kind not in _TABLE_NODES:
        raise InvalidInput(f"a query may not use {folded(str(kind))}")
    if "cte_map" in node and kind not in _QUERY_NODES:
        raise InvalidInput(f"a query may not use {folded(str(kind))}")
    if node.get("at_clause"):
        raise InvalidInput("a query may not use AT")
    if kind == "BASE_TABLE":
        return _table(node, tables, ctes)
    if kind == "SHOW_REF":
        _check_show(node)
    elif kind == "PIVOT":
        _check_pivot(node)
    elif kind == "TABLE_FUNCTION":
        name = folded(str((node.get("function") or {}).get("function_name")))
        if name not in _TABLE_FUNCTIONS:
            raise InvalidInput(f"a query may not read from {name[:80]!r}()")
    elif node.get("function_name") is not None:
        _check_function(node)
    return None


def _table(node: Node, tables: dict[tuple[str, ...], str], ctes: frozenset[str]) -> str | None:
    given = (str(node.get(part) or "") for part in ("catalog_name", "schema_name", "table_name"))
    parts = tuple(folded(part) for part in given if part)
    if (len(parts) == 1 and parts[0] in ctes) or parts in _CATALOG:
        return None
    if parts[:1] == ("main",) and len(parts) == 2:
        parts = parts[1:]
    if parts in tables:
        return tables[parts]
    shown = ", ".join(sorted(tables.values())) or "none yet"
    raise InvalidInput(f"no table is called {'.'.join(parts)[:80]!r}; there are: {shown}")


def _check_show(node: Node) -> None:
    """DESCRIBE and SUMMARIZE hold a query, which is checked by itself; SHOW holds a name."""
    if node.get("query") is None and node.get("table_name") not in _SHOWN:
        raise InvalidInput("a query may not use this SHOW: there are SHOW [ALL] TABLES, DESCRIBE and SUMMARIZE")


def _check_pivot(node: Node) -> None:
    """Refuse a PIVOT over the values of an ENUM type: the gate does not know the type."""
    if any(pivot.get("pivot_enum") for pivot in node.get("pivots") or ()):
        raise InvalidInput("a PIVOT takes a list of values or finds them itself: PIVOT t ON c USING count(*)")


def _check_function(node: Node) -> None:
    name = folded(str(node["function_name"]))
    if name == "current_setting":
        given = [text_constant(each) for each in node.get("children", ())]
        if [setting and folded(setting) for setting in given] not in _READABLE_SETTINGS:
            raise InvalidInput("current_setting() may only be called with 'TimeZone'")
    elif name not in allowed_functions():
        raise InvalidInput(f"function {name[:80]!r} is not on the list of allowed functions")
