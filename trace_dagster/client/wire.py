"""Python values as the JSON of a request, without loss."""

from __future__ import annotations

import datetime
import decimal
import math
import numbers
import operator
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, SupportsIndex

from trace_dagster.errors import InvalidInput

_TOO_LARGE = 1 << 127
"""The service's SQL has no larger integer, and Python itself refuses to write a very long one as text."""

_NANOSECONDS = re.compile(r"\.[0-9]{6}[0-9]*[1-9]")
"""A time of pandas may have them."""

AsOfPart = int | str | datetime.date
"""A block, ``common``, or a time; a date is its first moment in UTC."""


def wire_parameters(given: Mapping[str, Any] | Sequence[Any]) -> Any:
    """Return the values of ``$name`` by name, or of ``?`` in their order.

    Raises InvalidInput for a value without a form in JSON.
    """
    if isinstance(given, Mapping):
        return {str(name): _value(value, str(name)) for name, value in given.items()}
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Iterable):
        raise InvalidInput('params is a mapping such as {"name": value}, or a list of the values of ?')
    return [_value(value, str(number)) for number, value in enumerate(given, 1)]


def wire_as_of(given: AsOfPart | Sequence[AsOfPart]) -> Any:
    """Return ``as_of`` of a request. Raises InvalidInput for another type, and for an empty list."""
    if isinstance(given, list | tuple) and given:
        return [_as_of_part(part) for part in given]
    return _as_of_part(given)


def wire_integer(given: SupportsIndex, name: str) -> int:
    """Return a number of a request as Python's own, also one of numpy. Raises InvalidInput for another value."""
    with suppress(TypeError):
        found = operator.index(given)
        if not isinstance(given, bool) and abs(found) < _TOO_LARGE:
            return found
    raise InvalidInput(f"{name} is a whole number of at most 38 digits")


def _value(value: Any, name: str) -> Any:  # noqa: C901  (one case per type)
    match value:
        case None | bool() | str():
            return value
        case numbers.Integral():
            return _integer(value, name)
        case float() if math.isfinite(value):
            return _typed("double", repr(float(value)))
        case decimal.Decimal() if value.is_finite():
            return _typed("decimal", str(value))
        case bytes() | bytearray() | memoryview():
            return _typed("binary", "0x" + bytes(value).hex())
        case datetime.datetime():
            return _typed("timestamp", _microseconds(value.isoformat(), name))
        case datetime.date():
            return _typed("date", value.isoformat())
        case list() | tuple():
            return [_value(each, name) for each in value]
        case {"type": str(), "value": str()} if len(value) == 2:
            return value
        case _ if _is_numpy_bool(value):
            return bool(value)
    raise InvalidInput(f"the value of parameter ${name[:80]} {_refusal(value)}")


def _is_numpy_bool(value: Any) -> bool:
    """Return whether a value is a bool of numpy, which is imported if there is one."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.bool_)


def _refusal(value: Any) -> str:
    """Return why a value cannot be a parameter, and what to give instead."""
    match value:
        case float() | decimal.Decimal():
            return "is NaN or infinite, which JSON has no number for: give a text and cast it to DOUBLE in the SQL"
        case datetime.time():
            return "is a time of day, which is no parameter: give a text and cast it to TIME in the SQL"
    return (
        f"has type {type(value).__name__}: give a text, a number, bytes, a date, a datetime, True, False, None, or a"
        " list of these"
    )


def _microseconds(text: str, name: str) -> str:
    if _NANOSECONDS.search(text):
        raise InvalidInput(
            f"the value of parameter ${name[:80]} has nanoseconds, and a time parameter has microseconds at most:"
            " give it as a text and cast it to TIMESTAMP_NS in the SQL"
        )
    return text


def _integer(value: numbers.Integral, name: str) -> int:
    found = int(value)
    if abs(found) >= _TOO_LARGE:
        raise InvalidInput(f"the value of parameter ${name[:80]} has more than 38 digits: give it as a text")
    return found


def _typed(kind: str, text: str) -> dict[str, str]:
    return {"type": kind, "value": text}


def _as_of_part(part: Any) -> int | str:
    match part:
        case bool():
            pass
        case numbers.Integral() if abs(int(part)) < _TOO_LARGE:
            return int(part)
        case str():
            return part
        case datetime.date():
            return part.isoformat()
    raise InvalidInput("as_of is a block, a time, `common`, or a list of these")
