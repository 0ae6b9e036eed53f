"""Finds the rows and columns that a query can need of each relation, so that others are not read.

DuckDB's optimizer answers this. The query is planned over empty tables, without the statistics of these tables. A
filter that the optimizer pushes down to the scan of a table holds for every row that can change the answer: the
session's own optimizer drops the other rows by the same rule. This module reads the filters of comparisons with
constants. It ignores every filter that it does not know. A column that the optimizer removes from every scan of a table
cannot change the answer either.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import duckdb

from trace_dagster.query.syntax import Node, objects
from trace_dagster.registry.conditions import (
    HASHED_COLUMNS,
    HIGHEST,
    LOWEST,
    Conditions,
    Intervals,
    Reads,
    Values,
    all_of,
    any_of,
    between,
)

_VALUE_COLUMNS = frozenset({*HASHED_COLUMNS, "address", "topic0"})
_MAX_VALUES = 256
"""A longer list of values of one column limits nothing: it would be found in nearly every file."""
_KEPT_OPTIMIZERS = frozenset(
    {
        "expression_rewriter",
        "filter_pullup",
        "filter_pushdown",
        "cte_filter_pusher",
        "cte_inlining",
        "unused_columns",
        "build_side_probe_side",  # it moves no filter: after it, operators without unused columns have types
    }
)
"""Those that move filters and remove columns. Others, like statistics_propagation, conclude something from the tables
being empty."""
_FLIPPED = {
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
}
_LIST_CONTAINS = frozenset({"contains", "list_contains", "list_has", "array_contains", "array_has"})
"""DuckDB's names of ``column IN list``, where the list is one value: a parameter, for example."""
_INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
)
_TIMES = frozenset({"TIMESTAMP", "TIMESTAMP WITH TIME ZONE"})
_DAY = 86_400_000_000
_EXACT = {"FLOAT": 1 << 24, "DOUBLE": 1 << 53}
"""Below these, every integer is exact in the type, and no larger integer is rounded into the range."""
_ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})")

_Condition = Intervals | Values | None


def move_filters_only(connection: duckdb.DuckDBPyConnection) -> None:
    """Prepare a connection for :func:`conditions_of`, before its settings are locked."""
    names = [name for (name,) in connection.execute("select name from duckdb_optimizers()").fetchall()]
    connection.execute(f"set disabled_optimizers = '{','.join(sorted(set(names) - _KEPT_OPTIMIZERS))}'")
    connection.execute("set TimeZone = 'UTC'")
    _functions_of_time()  # now: a query would wait for it


def reads_of(text: str, planner: duckdb.DuckDBPyConnection) -> dict[str, Reads]:
    """Return, for each table that a SELECT scans, what its scans need.

    A table that is missing in the answer may be needed whole. So may every table if the query cannot be planned, or if
    its answer depends on the time at which it runs. ``planner`` holds the tables, empty.
    """
    plan = _plan(text, planner, optimized=False)
    if plan is None or _depends_on_time(plan):
        return {}
    found: dict[str, list[tuple[Conditions, frozenset[str]]]] = {}
    for scan, filters in _scans(_plan(text, planner, optimized=True)):
        found.setdefault(_table(scan), []).append((_conditions(scan, filters), _columns(scan)))
    return {
        table: Reads(tuple(each for each, _ in scans), frozenset[str]().union(*(columns for _, columns in scans)))
        for table, scans in found.items()
    }


def _plan(text: str, planner: duckdb.DuckDBPyConnection, *, optimized: bool) -> Node | None:
    option = "true" if optimized else "false"
    try:
        row = planner.execute(f"select json_serialize_plan(?, optimize := {option})", [text]).fetchone()
        plan: Node = json.loads(row[0]) if row else {"error": True}
    except (duckdb.Error, RecursionError, ValueError):
        return None
    return None if plan.get("error") else plan


def _depends_on_time(plan: Node) -> bool:
    """Return whether a function like ``now()`` is called: the planner would fold it to a time before the query's."""
    called = {str(node.get("name")) for node in objects(plan) if node.get("expression_class") == "BOUND_FUNCTION"}
    return not called.isdisjoint(_functions_of_time())


@cache
def _functions_of_time() -> frozenset[str]:
    """Return the names of functions whose result is the same within one query only."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select function_name from duckdb_functions() where stability = 'CONSISTENT_WITHIN_QUERY'"
        ).fetchall()
    return frozenset(name for (name,) in rows)


def _scans(plan: Node | None) -> list[tuple[Node, list[Node]]]:
    """Return each scan of a table with the expressions of the filter directly above it."""
    found: dict[int, tuple[Node, list[Node]]] = {}
    for node in objects(plan):
        if node.get("type") == "LOGICAL_GET" and (node.get("function_data") or {}).get("table"):
            found.setdefault(id(node), (node, []))
        if node.get("type") == "LOGICAL_FILTER" and not node.get("projection_map"):
            for child in node["children"]:
                found[id(child)] = (child, node["expressions"])
    return [
        (node, filters)
        for node, filters in found.values()
        if node.get("type") == "LOGICAL_GET" and (node.get("function_data") or {}).get("table")
    ]


def _table(scan: Node) -> str:
    schema, table = scan["function_data"]["schema"], scan["function_data"]["table"]
    return str(table if schema == "main" else f"{schema}.{table}")


def _conditions(scan: Node, filters: Sequence[Node]) -> Conditions:
    names = [str(name) for name in scan["names"]]
    pushed = [(names[each["key"]], each["value"]) for each in scan["table_filters"]["filters"]]
    columns = {at: names[index] for at, index in enumerate(_outputs(scan)) if index < len(names)}

    def of_column(name: str, constants: Callable[[str, Node], _Condition]) -> _Condition:
        by_filter = [_of_filter(value, constants) for column, value in pushed if column == name]
        places = frozenset(at for at, column in columns.items() if column == name)
        found: _Condition = all_of([*by_filter, *(_of_expression(each, places, constants) for each in filters)])
        return found

    values = {name: of_column(name, _equal_bytes) for name in names if name in _VALUE_COLUMNS}
    return Conditions(
        blocks=of_column("block_number", _integers),  # type: ignore[arg-type]
        times=of_column("block_timestamp", _times),  # type: ignore[arg-type]
        values={name: found for name, found in values.items() if isinstance(found, frozenset) and _is_short(found)},
    )


def _columns(scan: Node) -> frozenset[str]:
    """Return the columns that a scan reads; row numbers, which ``count(*)`` asks for, are none."""
    names = scan["names"]
    pushed = {int(each["key"]) for each in scan["table_filters"]["filters"]}
    read = {int(each["index"]) for each in scan["column_indexes"]}
    return frozenset(str(names[index]) for index in pushed | read if index < len(names))


def _is_short(found: Values) -> bool:
    return len(found) <= _MAX_VALUES


def _outputs(scan: Node) -> list[int]:
    """Return the table's column index of each column that the scan gives to the filter above it."""
    read = [int(each["index"]) for each in scan["column_indexes"]]
    return [read[at] for at in scan["projection_ids"]] if scan["projection_ids"] else read


def _of_filter(given: Node, constants: Callable[[str, Node], _Condition]) -> _Condition:
    """Return the condition of a filter that was pushed into the scan of a column."""
    kind = given.get("filter_type")
    found: _Condition = None
    if kind == "CONSTANT_COMPARISON":
        found = constants(given["comparison_type"], given["constant"])
    elif kind == "CONJUNCTION_AND":
        found = all_of(_of_filter(each, constants) for each in given["child_filters"])
    elif kind == "CONJUNCTION_OR":
        found = any_of(_of_filter(each, constants) for each in given["child_filters"])
    elif kind == "IN_FILTER":
        found = any_of(constants("COMPARE_EQUAL", each) for each in given["values"])
    elif kind == "OPTIONAL_FILTER":
        found = _of_filter(given["child_filter"] or {}, constants)
    elif kind == "EXPRESSION_FILTER":
        found = _of_expression(given["expr"], frozenset({0}), constants)
    return found


def _of_expression(given: Node, places: frozenset[int], constants: Callable[[str, Node], _Condition]) -> _Condition:
    """Return the condition that an expression of a filter is to the column at ``places`` of the filter's input."""
    kind, form = given.get("type"), given.get("expression_class")
    found: _Condition = None
    if form == "BOUND_CONJUNCTION":
        combined = all_of if kind == "CONJUNCTION_AND" else any_of
        found = combined(_of_expression(each, places, constants) for each in given["children"])
    elif form == "BOUND_COMPARISON":
        left, right, name = given["left"], given["right"], str(kind)
        if left.get("expression_class") == "BOUND_CONSTANT":
            left, right, name = right, left, _FLIPPED.get(name, name)
        found = _compared(left, name, right, places, constants)
    elif form == "BOUND_BETWEEN":
        lower = "COMPARE_GREATERTHANOREQUALTO" if given["lower_inclusive"] else "COMPARE_GREATERTHAN"
        upper = "COMPARE_LESSTHANOREQUALTO" if given["upper_inclusive"] else "COMPARE_LESSTHAN"
        sides = ((lower, given["lower"]), (upper, given["upper"]))
        found = all_of(_compared(given["input"], name, side, places, constants) for name, side in sides)
    elif form == "BOUND_OPERATOR" and kind == "COMPARE_IN":
        column, *listed = given["children"]
        found = any_of(_compared(column, "COMPARE_EQUAL", each, places, constants) for each in listed)
    elif form == "BOUND_FUNCTION" and given.get("name") in _LIST_CONTAINS:
        values, column = given["children"]
        found = any_of(_compared(column, "COMPARE_EQUAL", each, places, constants) for each in _listed(values))
    return found


def _listed(values: Node) -> Sequence[Node]:
    """Return the values of a constant list as constants; the node itself, which is no value of a column, otherwise."""
    constant = values.get("value") or {}
    if values.get("expression_class") != "BOUND_CONSTANT" or constant["type"]["id"] != "LIST" or constant["is_null"]:
        return [values]
    return [{**values, "value": each} for each in constant["value"]["children"]]


def _compared(
    column: Node, name: str, constant: Node, places: frozenset[int], constants: Callable[[str, Node], _Condition]
) -> _Condition:
    """Return the condition of a comparison of a column, also of a cast of it, with a constant of the same type."""
    if constant.get("expression_class") != "BOUND_CONSTANT":
        return None
    kind = column.get("return_type")
    if column.get("expression_class") == "BOUND_CAST":
        column = column["child"]
    if column.get("expression_class") != "BOUND_REF" or column["index"] not in places:
        return None
    return constants(name, constant["value"]) if kind == constant["value"]["type"] else None


def _integers(name: str, constant: Node) -> _Condition:
    """Return the integers for which a comparison with a number holds."""
    kind, value = constant["type"]["id"], _number(constant)
    if kind in _INTEGERS and isinstance(value, int):
        return _ordered(name, value, value)
    if kind == "DECIMAL" and isinstance(value, int):
        scale = 10 ** int(constant["type"]["type_info"]["scale"])
        return _ordered(name, value // scale, -(-value // scale))
    if isinstance(value, float) and math.isfinite(value) and abs(value) < _EXACT.get(kind, 0):
        return _ordered(name, math.floor(value), math.ceil(value))
    return None


def _times(name: str, constant: Node) -> _Condition:
    """Return the microseconds since 1970 for which a comparison with a time or a date holds. The session is in UTC."""
    kind, value = constant["type"]["id"], _number(constant)
    if not isinstance(value, int):
        return None
    if kind in _TIMES:
        return _ordered(name, value, value)
    return _ordered(name, (value + 1) * _DAY - 1, value * _DAY) if kind == "DATE" else None


def _ordered(name: str, floor: int, ceiling: int) -> _Condition:
    """Return the integers for which a comparison holds.

    ``floor`` and ``ceiling`` are those of the number that is compared with; of a day, its last and first microsecond.
    """
    match name:
        case "COMPARE_EQUAL" | "COMPARE_NOT_DISTINCT_FROM":
            return between(ceiling, floor)
        case "COMPARE_LESSTHAN":
            return between(LOWEST, ceiling - 1)
        case "COMPARE_LESSTHANOREQUALTO":
            return between(LOWEST, floor)
        case "COMPARE_GREATERTHAN":
            return between(floor + 1, HIGHEST)
        case "COMPARE_GREATERTHANOREQUALTO":
            return between(ceiling, HIGHEST)
    return None


def _number(constant: Node) -> int | float | None:
    """Return a constant's number: wide integers and decimals are two halves of 64 bits in DuckDB's JSON."""
    value = constant.get("value")
    if constant.get("is_null") or isinstance(value, bool):
        return None
    if isinstance(value, Mapping) and value.keys() == {"upper", "lower"}:
        return (int(value["upper"]) << 64) + int(value["lower"])
    return value if isinstance(value, int | float) else None


def _equal_bytes(name: str, constant: Node) -> _Condition:
    """Return the value that a comparison asks for. Other comparisons than for equality limit nothing."""
    if constant["type"]["id"] != "BLOB" or constant.get("is_null") or name not in _EQUALITIES:
        return None
    return frozenset({_bytes(str(constant["value"]))})


_EQUALITIES = frozenset({"COMPARE_EQUAL", "COMPARE_NOT_DISTINCT_FROM"})


def _bytes(text: str) -> bytes:
    r"""Return the bytes of a BLOB as DuckDB writes it: printable ASCII, and ``\xAB`` for other bytes."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
