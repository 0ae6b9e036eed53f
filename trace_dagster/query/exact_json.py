"""Reads JSON without loss: a number with a point or an exponent is an exact decimal."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any


def exact_json(
    text: str, *, constant: Callable[[str], Any], pairs: Callable[[list[tuple[str, Any]]], Any] = dict
) -> Any:
    """Return the value of a JSON text. ``constant`` takes NaN and infinities, ``pairs`` the members of each object.

    Raises ValueError for a text that is no JSON, is nested too deeply, or has a number that is too long to read.
    """
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=constant, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ArithmeticError:
        raise ValueError("a number with such an exponent cannot be read") from None
