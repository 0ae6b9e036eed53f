"""Reads the values of a query's parameters from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from trace_dagster.errors import InvalidInput


def given(parameters: Iterable[str]) -> dict[str, Any]:
    """Return the values by name from texts like ``name=value``. A value that is not JSON is a text.

    Raises InvalidInput for a text without ``=``, without a name, or with a name that was given before.
    """
    found: dict[str, Any] = {}
    for text in parameters:
        name, separator, value = text.partition("=")
        name = name.removeprefix("$").lower()
        if not separator or not name:
            raise InvalidInput(f"a parameter is written name=value, not {text[:80]!r}")
        if name in found:
            raise InvalidInput(f"parameter ${name[:80]} is given twice")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError):
        return text
