"""Values of parameters that JSON has no form for: ``{"type": "binary", "value": "0xab12"}``."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable, Mapping
from typing import Any

from trace_dagster.errors import InvalidInput

_MOST_CHARACTERS = 1 << 20
_INTEGER = re.compile(r"-?[0-9]{1,39}")
_DECIMAL = re.compile(r"-?[0-9]{1,38}(?:\.[0-9]{1,38})?(?:[eE][-+]?[0-9]{1,3})?")
_DOUBLE = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][-+]?[0-9]{1,4})?")
_BELOW_MICROSECONDS = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")
_BINARY = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def typed_value(given: Mapping[str, Any], name: str) -> Any:
    """Return the value that an object with the members ``type`` and ``value`` stands for.

    Both are texts. ``name`` is that of the parameter. Raises InvalidInput if the type is unknown, or if the value is
    none of it, or a time with more digits than microseconds.
    """
    kind, text = given.get("type"), given.get("value")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None or not isinstance(text, str) or len(given) != 2 or len(text) > _MOST_CHARACTERS:
        raise InvalidInput(
            f'an object as the value of parameter ${name} must be {{"type": T, "value": text}}, with T one of'
            f" {', '.join(_READERS)}"
        )
    if kind == "timestamp":
        require_microseconds(text, name)
    try:
        return read(text)
    except (ValueError, OverflowError, decimal.InvalidOperation):
        raise InvalidInput(f"the value of parameter ${name} is no {kind}: {text[:80]!r}") from None


def require_microseconds(text: str, name: str) -> None:
    """Raise InvalidInput if a time in ISO 8601 has a part below microseconds, which Python and DuckDB would cut off."""
    if _BELOW_MICROSECONDS.search(text):
        raise InvalidInput(
            f"the value of parameter ${name} has nanoseconds, and a time parameter has microseconds at most:"
            " give it as a text and cast it to TIMESTAMP_NS"
        )


def _matched(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError
    return text


_READERS: dict[str, Callable[[str], Any]] = {
    "integer": lambda text: int(_matched(_INTEGER, text)),
    "decimal": lambda text: decimal.Decimal(_matched(_DECIMAL, text)),
    "double": lambda text: float(_matched(_DOUBLE, text)),
    "binary": lambda text: bytes.fromhex(_matched(_BINARY, text)[2:]),
    "date": datetime.date.fromisoformat,
    "timestamp": datetime.datetime.fromisoformat,
}
"""By type. A timestamp without a zone is DuckDB's TIMESTAMP, one with a zone is TIMESTAMPTZ."""
