"""Reads JSON without loss: a number with a point or an exponent is an exact decimal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

_MOST_LEVELS = 50
"""Lists and objects in each other: what reads them calls itself for each level."""


def exact_json(
    text: str, *, constant: Callable[[str], Any], pairs: Callable[[list[tuple[str, Any]]], Any] = dict
) -> Any:
    """Return the value of a JSON text. ``constant`` takes NaN and infinities, ``pairs`` the members of each object.

    Raises ValueError for a text that is no JSON, is nested too deeply, or has a number that is too long to read.
    """
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=constant, object_pairs_hook=pairs)
        _require_depth(found)
        return found
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ArithmeticError:
        raise ValueError("a number with such an exponent cannot be read") from None


def _require_depth(document: Any) -> None:
    level, levels = [document], 0
    while level := [item for each in level for item in _items(each)]:
        levels += 1
        if levels > _MOST_LEVELS:
            raise ValueError("nested too deeply")


def _items(document: Any) -> Iterable[Any]:
    if isinstance(document, dict):
        return document.values()
    return document if isinstance(document, list) else ()
