"""Converts query results to JSON values without loss of precision."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trace_dagster.query.query_result import QueryResult

_EXACT_IN_JSON = 2**53
"""Up to this integer a JSON reader that uses doubles is exact."""


def to_json(result: QueryResult) -> dict[str, Any]:
    """Return ``{"columns": [{"name", "type"}], "rows": [[...]], "truncated": bool}``, and ``snapshot`` if it is known.

    Strings represent integers beyond 2^53, decimals with a fraction, NaN and infinities. A BLOB is 0x hex, a date or
    time ISO 8601, an interval its seconds.
    """
    return {
        "columns": [{"name": name, "type": kind} for name, kind in result.columns],
        "rows": [
            [value(item, kind) for item, (_, kind) in zip(row, result.columns, strict=True)] for row in result.rows
        ],
        "truncated": result.truncated,
        **({} if result.snapshot is None else {"snapshot": result.snapshot.to_json()}),
    }


def value(item: Any, kind: str = "") -> Any:  # noqa: C901  (one case per type)
    """Return one value as a JSON value. ``kind`` is the name of its DuckDB type."""
    if kind == "BIGNUM" and isinstance(item, str):
        item = int(item)
    match item:
        case None | bool():
            return item
        case int():
            return item if -_EXACT_IN_JSON <= item <= _EXACT_IN_JSON else str(item)
        case float():
            return item if math.isfinite(item) else str(item)
        case bytes() | bytearray():
            return "0x" + bytes(item).hex()
        case str():
            return item
        case list() | tuple():
            return [value(entry) for entry in item]
        case dict():
            return {str(value(key)): value(entry) for key, entry in item.items()}
        case datetime.datetime() | datetime.date() | datetime.time():
            return item.isoformat()
        case datetime.timedelta():
            return item.total_seconds()
        case decimal.Decimal():
            return value(int(item)) if item.as_tuple().exponent == 0 else str(item)
    return str(item)
