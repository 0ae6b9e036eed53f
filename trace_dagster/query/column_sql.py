"""SQL expressions that convert a column of a result: to a type that every Arrow reader has, or to a field of CSV.

Each function takes an expression and its DuckDB type. The expression is evaluated more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duckdb.sqltypes import DuckDBPyType

from trace_dagster.errors import InvalidInput
from trace_dagster.query.syntax import quoted

_AS_TEXT = frozenset(
    {"bignum", "uhugeint", "interval", "time with time zone", "time_ns", "bit", "variant", "union", "geometry", "enum"}
)
"""Types that Arrow has not, or that one of pyarrow, pandas, polars and Parquet cannot read."""
_TEXT_IN_JSON = frozenset({"interval", "variant", "union"})
"""Types that Python has not, or not whole: months and days of an interval, nanoseconds within the others."""
_SMALL = frozenset({"tinyint", "smallint", "integer", "utinyint", "usmallint", "uinteger", "boolean"})
_LARGE = frozenset({"bigint", "ubigint", "hugeint", "uhugeint"})
"""Integers that may be larger than a JSON reader holds."""
_EXACT = frozenset({"decimal", "bignum"})
_FLOATING = frozenset({"float", "double"})
_LOCAL_TIMES = frozenset({"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"})
_NESTED = frozenset({"list", "array", "struct", "map"})
_MOST_LEVELS = 10
"""DuckDB binds a function over a list twice, so each level within another one doubles the time."""
Other = Callable[[DuckDBPyType], str | None]
"""Returns the type in place of one; None if it stays."""

_BARE = (
    _SMALL | _LARGE | _EXACT | _FLOATING | _LOCAL_TIMES | {"timestamp with time zone", "date", "time", "blob", "uuid"}
)
"""Types whose text never has a comma, a quote or a line break."""


def arrow_sql(value: str, kind: DuckDBPyType) -> str:
    """Return the expression for Arrow and Parquet: itself if its type can stay.

    A HUGEINT becomes a DECIMAL(38, 0), as DuckDB names it to Arrow; the cast fails where a value has 39 digits, which
    readers would show as another number.
    """
    return _cast(value, kind, _in_arrow)


def is_text_in_json(kind: DuckDBPyType) -> bool:
    """Return whether :func:`json_column_sql` changes values of this type."""
    return _type(kind, _in_json) != str(kind)


def json_column_sql(value: str, kind: DuckDBPyType) -> str:
    """Return the expression for a column of JSON rows, which ``render.py`` makes of Python's values: itself, or with
    DuckDB's text of what Python cannot hold.
    """
    return _cast(value, kind, _in_json)


def csv_sql(value: str, kind: DuckDBPyType) -> str:
    """Return the expression for a field of RFC 4180: NULL is empty, and an empty text is ``""``.

    Raises InvalidInput for a type with many lists within each other.
    """
    if _levels(kind) > _MOST_LEVELS:
        raise InvalidInput(f"CSV has lists in at most {_MOST_LEVELS} levels: unnest them, or ask for arrow or parquet")
    text = _json(value, kind, 0) if kind.id in _NESTED else _text(value, kind)
    if kind.id in _BARE:
        return f"coalesce({text}, '')"
    text = f"cast({text} as varchar)"
    is_quoted = f"{text} = '' or regexp_matches({text}, '[\",\\r\\n]')"
    quotes = f"""'"' || replace({text}, '"', '""') || '"'"""
    return f"case when {value} is null then '' when {is_quoted} then {quotes} else {text} end"


def csv_header(names: Sequence[str]) -> bytes:
    """Return the first line of a CSV file."""
    return (",".join(_csv_name(name) for name in names) + "\r\n").encode()


def _levels(kind: DuckDBPyType) -> int:
    """Return how many lists and maps are within each other in a type."""
    if kind.id not in _NESTED:
        return 0
    return (kind.id != "struct") + max(_levels(member) for _, member in _members(kind))


def _csv_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if not name or any(char in name for char in ',"\r\n') else name


def _in_arrow(kind: DuckDBPyType) -> str | None:
    if kind.id in _AS_TEXT:
        return "VARCHAR"
    if kind.id == "struct" and not all(name for name, _ in _members(kind)):
        return _struct(kind, _in_arrow)
    return "DECIMAL(38,0)" if kind.id == "hugeint" else None


def _in_json(kind: DuckDBPyType) -> str | None:
    return "VARCHAR" if kind.id in _TEXT_IN_JSON else None


def _cast(value: str, kind: DuckDBPyType, other: Other) -> str:
    target = _type(kind, other)
    return value if target == str(kind) else f"cast({value} as {target})"


def _type(kind: DuckDBPyType, other: Other) -> str:
    """Return a type with other ones in place of some that are in it."""
    if (found := other(kind)) is not None:
        return found
    if kind.id == "list":
        return f"{_type(_child(kind), other)}[]"
    if kind.id == "array":
        return f"{_type(_child(kind), other)}[{kind.children[1][1]}]"
    if kind.id == "map":
        (_, key), (_, value) = _members(kind)
        return f"MAP({_type(key, other)}, {_type(value, other)})"
    if kind.id == "struct" and any(_type(member, other) != str(member) for _, member in _members(kind)):
        return _struct(kind, other)
    return str(kind)


def _struct(kind: DuckDBPyType, other: Other) -> str:
    """Members of a struct without names, as ``row()`` makes it, become v1, v2, ..."""
    members = (
        f"{quoted(name or f'v{number}')} {_type(member, other)}"
        for number, (name, member) in enumerate(_members(kind), 1)
    )
    return f"STRUCT({', '.join(members)})"


def _members(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """Return the names and types within a nested type."""
    return [(name, member) for name, member in kind.children if isinstance(member, DuckDBPyType)]


def _child(kind: DuckDBPyType) -> DuckDBPyType:
    return _members(kind)[0][1]


def _text(value: str, kind: DuckDBPyType) -> str:
    """Return an expression for the text of a value: times are ISO 8601, binary values 0x hex."""
    text = f"cast({value} as varchar)"
    if kind.id == "blob":
        return f"'0x' || lower(hex({value}))"
    if kind.id in _LOCAL_TIMES:
        return f"case when {_is_ad(value, kind)} then replace({text}, ' ', 'T') else {text} end"
    if kind.id == "timestamp with time zone":  # sessions are in UTC, which DuckDB writes as +00
        return f"case when {_is_ad(value, kind)} then replace({text}, ' ', 'T') || ':00' else {text} end"
    return text


def _is_ad(value: str, kind: DuckDBPyType) -> str:
    """Return a condition for times that ISO 8601 can write: neither infinite nor before Christ."""
    if kind.id == "timestamp_ns":
        return f"isfinite({value})"  # from 1677 on
    return f"isfinite({value}) and {value} >= cast('0001-01-01' as {kind})"


def _json(value: str, kind: DuckDBPyType, depth: int) -> str:
    """Return an expression for the JSON of a value, by the rules of ``render.py``."""
    if kind.id in _SMALL:
        return f"to_json({value})"
    if kind.id in _LARGE:
        is_exact = f"{value} between -9007199254740992 and 9007199254740992"
        if kind.id.startswith("u"):
            is_exact = f"{value} <= 9007199254740992"
        return f"case when {is_exact} then to_json({value}) else to_json({_text(value, kind)}) end"
    if kind.id in _FLOATING:
        return f"case when isfinite({value}) then to_json({value}) else to_json({_text(value, kind)}) end"
    if kind.id in ("list", "array"):
        return _json_list(value, kind, depth)
    if kind.id == "struct":
        return _json_struct(value, kind, depth)
    if kind.id == "map":
        return _json_map(value, kind, depth)
    return f"to_json({_text(value, kind)})"


def _json_list(value: str, kind: DuckDBPyType, depth: int) -> str:
    given = f"cast({value} as {_child(kind)}[])" if kind.id == "array" else value
    return f"to_json(list_transform({given}, lambda v{depth}: {_json(f'v{depth}', _child(kind), depth + 1)}))"


def _json_struct(value: str, kind: DuckDBPyType, depth: int) -> str:
    """A struct without names, as ``row()`` makes it, is a list."""
    members = [
        (name, _json(f"struct_extract_at({value}, {number})", member, depth))
        for number, (name, member) in enumerate(_members(kind), 1)
    ]
    is_named = all(name for name, _ in members)
    parts = (f"{_literal(name)}, {member}" if is_named else member for name, member in members)
    made = f"{'json_object' if is_named else 'json_array'}({', '.join(parts)})"
    return f"case when {value} is null then to_json(null) else {made} end"


def _json_map(value: str, kind: DuckDBPyType, depth: int) -> str:
    (_, key), (_, entry) = _members(kind)
    name, found = f"v{depth}.key", f"v{depth}.value"
    pair = f"struct_pack(k := {_text(name, key)}, v := {_json(found, entry, depth + 1)})"
    return f"to_json(map_from_entries(list_transform(map_entries({value}), lambda v{depth}: {pair})))"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
