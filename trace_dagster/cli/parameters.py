"""Reads the values of a query's parameters from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trace_dagster.errors import InvalidInput
from trace_dagster.query.exact_json import exact_json


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
        return exact_json(text, constant=str)
    except ValueError:
        return text
