"""Conditions on one column, as sets of values: intervals of integers, or single byte strings.

None stands for "any value": a condition that is not understood limits nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Interval = tuple[int, int]
"""First and last value, both included."""
Intervals = tuple[Interval, ...]
"""Disjoint intervals in ascending order; an empty tuple holds no value."""
Values = frozenset[bytes]

HASHED_COLUMNS = ("transaction_hash", "block_hash")
"""A layout's hash index has the hashes of these columns, of those that its rows have."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
_MOST_UNITED_VALUES = 1024
MAX_INTERVALS = 64
"""Most intervals of one condition; where there are more, the smallest gaps are filled."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for every row that one reference of a relation needs; other rows cannot change the answer."""

    blocks: Intervals | None = None
    """Values of ``block_number``."""
    times: Intervals | None = None
    """Values of ``block_timestamp``, in microseconds since 1970."""
    values: Mapping[str, Values] = field(default_factory=dict)
    """Values of columns like ``address``, by column."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON that :meth:`from_json` reads."""
        values = {column: sorted(value.hex() for value in found) for column, found in self.values.items()}
        return {"blocks": self.blocks, "times": self.times, "values": values}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Conditions:
        """Read what :meth:`to_json` returns. Raises ValueError, TypeError or KeyError for anything else."""
        values = {str(name): frozenset(map(bytes.fromhex, found)) for name, found in given["values"].items()}
        return cls(_intervals(given["blocks"]), _intervals(given["times"]), values)


@dataclass(frozen=True, slots=True)
class Reads:
    """What a query needs of one relation."""

    conditions: tuple[Conditions, ...] = ()
    """One of each scan; none if all rows may be needed."""
    columns: frozenset[str] | None = None
    """None if all columns may be needed."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON that :meth:`from_json` reads."""
        columns = None if self.columns is None else sorted(self.columns)
        return {"conditions": [each.to_json() for each in self.conditions], "columns": columns}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Reads:
        """Read what :meth:`to_json` returns. Raises ValueError, TypeError or KeyError for anything else."""
        columns = None if given["columns"] is None else frozenset(map(str, given["columns"]))
        return cls(tuple(Conditions.from_json(each) for each in given["conditions"]), columns)

    def united(self, other: Reads) -> Reads:
        """Return what two names of one relation need together."""
        conditions = (*self.conditions, *other.conditions) if self.conditions and other.conditions else ()
        known = self.columns is not None and other.columns is not None
        return Reads(conditions, self.columns | other.columns if known else None)  # type: ignore[operator]


def _intervals(given: Sequence[Sequence[int]] | None) -> Intervals | None:
    if given is None:
        return None
    found = tuple((int(first), int(last)) for first, last in given)
    if any(not LOWEST <= first <= last <= HIGHEST for first, last in found) or len(found) > MAX_INTERVALS:
        raise ValueError("intervals are not valid")
    return found


def between(first: int, last: int) -> Intervals:
    """Return the integers from ``first`` to ``last`` that fit into 64 bits."""
    first, last = max(first, LOWEST), min(last, HIGHEST)
    return ((first, last),) if first <= last else ()


def either(left: Intervals, right: Intervals) -> Intervals:
    """Return the union, with neighbouring intervals joined."""
    found: list[Interval] = []
    for first, last in sorted((*left, *right)):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return _few(found)


def both(left: Intervals, right: Intervals) -> Intervals:
    """Return the intersection."""
    pairs = ((max(a, c), min(b, d)) for a, b in left for c, d in right)
    return _few(sorted((first, last) for first, last in pairs if first <= last))


def _few(found: Sequence[Interval]) -> Intervals:
    """Return at most MAX_INTERVALS intervals that hold all values of ``found``, which are disjoint and in order."""
    excess = len(found) - MAX_INTERVALS
    if excess <= 0:
        return tuple(found)
    gaps = sorted(range(1, len(found)), key=lambda at: found[at][0] - found[at - 1][1])
    filled = frozenset(gaps[:excess])
    joined: list[Interval] = []
    for at, (first, last) in enumerate(found):
        if at in filled:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def block_ranges(found: Intervals | None) -> str:
    """Return intervals as the text of a Postgres ``int8multirange``; every number for None."""
    return "{" + ",".join(_range(*_bounds(each)) for each in _or_everything(found)) + "}"


def block_span(found: Intervals | None) -> str:
    """Return the smallest Postgres ``int8range`` with all intervals, as text. Postgres estimates it well."""
    known = _or_everything(found)
    return _range(*_bounds((known[0][0], known[-1][1]))) if known else "empty"


def _bounds(interval: Interval) -> tuple[str | None, str | None]:
    first, last = interval
    return None if first == LOWEST else str(first), None if last == HIGHEST else str(last)


def time_ranges(found: Intervals | None) -> str:
    """Return intervals of microseconds as the text of a Postgres ``tstzmultirange``; every time for None."""
    return "{" + ",".join(_range(_time(first), _time(last)) for first, last in _or_everything(found)) + "}"


def _or_everything(found: Intervals | None) -> Intervals:
    return ((LOWEST, HIGHEST),) if found is None else found


def _range(first: str | None, last: str | None) -> str:
    return f"{'(' if first is None else '[' + first},{')' if last is None else last + ']'}"


def _time(microseconds: int) -> str | None:
    """Return a time as text; None if it is beyond the years that Python knows, which hold every time of a block."""
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:
        return None


def all_of(found: Iterable[Any | None]) -> Any | None:
    """Return the intersection of conditions of one column; None if none of them limits it."""
    result = None
    for each in found:
        if each is not None:
            result = each if result is None else _both(result, each)
    return result


def any_of(found: Iterable[Any | None]) -> Any | None:
    """Return the union of conditions of one column; None if one of them does not limit it."""
    result = None
    for each in found:
        if each is None:
            return None
        result = each if result is None else _either(result, each)
    return result


def united(conditions: Sequence[Conditions]) -> Conditions:
    """Return what holds for every row that one of these conditions needs. It may hold for more rows than that."""
    columns = frozenset.intersection(*(frozenset(each.values) for each in conditions))
    values = {column: frozenset[bytes]().union(*(each.values[column] for each in conditions)) for column in columns}
    return Conditions(
        any_of(each.blocks for each in conditions),
        any_of(each.times for each in conditions),
        {column: found for column, found in values.items() if len(found) <= _MOST_UNITED_VALUES},
    )


def _both(left: Any, right: Any) -> Any:
    return left & right if isinstance(left, frozenset) else both(left, right)


def _either(left: Any, right: Any) -> Any:
    return left | right if isinstance(left, frozenset) else either(left, right)
