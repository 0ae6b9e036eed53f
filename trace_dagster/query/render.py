"""Converts query results to JSON values without loss of precision."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

    from trace_dagster.query.query_result import QueryResult

Convert = Callable[[Any], Any]
_EXACT_IN_JSON = 2**53
"""Up to this integer a JSON reader that uses doubles is exact."""

_ENDS = frozenset({datetime.date.min, datetime.date.max, datetime.datetime.min, datetime.datetime.max})

_UNHASHABLE = frozenset({"list", "array", "struct", "map"})


def to_json(result: QueryResult) -> dict[str, Any]:
    """Return ``{"columns": [{"name", "type"}], "rows": [[...]], "truncated": bool}``, and ``snapshot`` if it is known.

    Strings represent integers beyond 2^53, every DECIMAL and BIGNUM, NaN and infinities. A BLOB is 0x hex, a date or
    time ISO 8601 (with ``+00:00`` if its type has a time zone), an interval or UNION its text. Nested values follow the
    types of their members.
    """
    return {
        "columns": [{"name": name, "type": kind} for name, kind in result.columns],
        "rows": [list(row) for row in result.rows],
        "truncated": result.truncated,
        **({} if result.snapshot is None else {"snapshot": result.snapshot.to_json()}),
    }


def converter(kind: DuckDBPyType) -> Convert:
    """Return the function that converts the values of a type to JSON values."""
    match kind.id:
        case "decimal" | "bignum":
            return _exact
        case "timestamp_ns" | "time_ns":
            return _without_nanoseconds
        case "list" | "array":
            return _of_list(converter(_members(kind)[0][1]))
        case "struct":
            return _of_struct([(name, converter(member)) for name, member in _members(kind)])
        case "map":
            (_, key), (_, entry) = _members(kind)
            pairs = _pairs_of_lists if key.id in _UNHASHABLE else dict[Any, Any].items
            return _of_map(converter(key), converter(entry), pairs)
    return value


def value(item: Any) -> Any:
    """Return one value as a JSON value, if its own type says all: BIGNUM is text to DuckDB's Python client."""
    match item:
        case None | bool() | str():
            return item
        case int():
            return item if -_EXACT_IN_JSON <= item <= _EXACT_IN_JSON else str(item)
        case float():
            return item if math.isfinite(item) else str(item)
        case bytes() | bytearray():
            return "0x" + bytes(item).hex()
        case list() | tuple():
            return [value(entry) for entry in item]
        case dict():
            return {_key(value(key)): value(entry) for key, entry in item.items()}
        case datetime.datetime() | datetime.date() | datetime.time():
            return _time(item)
        case decimal.Decimal():
            return _exact(item)
    return str(item)


def _time(item: datetime.datetime | datetime.date | datetime.time) -> str:
    """Return ISO 8601. Raises ValueError for the ends of Python's times, as which DuckDB's client returns infinity."""
    if item in _ENDS:
        raise ValueError("it is an infinite time, or one that looks the same in Python")
    return item.isoformat()


def _without_nanoseconds(item: Any) -> None:
    """Return null for null. Raises ValueError for a value: DuckDB's client returns microseconds."""
    if item is not None:
        raise ValueError("the rows of JSON have times in microseconds, and its type has nanoseconds")


def _exact(item: Any) -> Any:
    """Return a number as decimal text, never with an exponent."""
    if item is None:
        return None
    return format(item, "f") if isinstance(item, decimal.Decimal) else str(item)


def _of_list(convert: Convert) -> Convert:
    return lambda item: None if item is None else [convert(entry) for entry in item]


def _of_struct(members: Sequence[tuple[str, Convert]]) -> Convert:
    """A struct without names, as ``row()`` makes it, is a list."""

    def converted(item: Any) -> Any:
        if item is None:
            return None
        if all(name for name, _ in members):
            return {name: convert(item[name]) for name, convert in members}
        entries = item.values() if isinstance(item, dict) else item
        return [convert(entry) for (_, convert), entry in zip(members, entries, strict=True)]

    return converted


def _of_map(key: Convert, entry: Convert, pairs: Callable[[Any], Iterable[tuple[Any, Any]]]) -> Convert:
    """The key of a map is the text of its value."""
    return lambda item: None if item is None else {_key(key(each)): entry(found) for each, found in pairs(item)}


def _pairs_of_lists(item: dict[str, list[Any]]) -> Iterable[tuple[Any, Any]]:
    """Return the entries of a map whose keys Python cannot hash: DuckDB's client returns two lists."""
    return zip(item["key"], item["value"], strict=True)


def _key(shown: Any) -> str:
    return shown if isinstance(shown, str) else json.dumps(shown)


def _members(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    found: Any = kind.children
    return [(name, member) for name, member in found if not isinstance(member, int)]
