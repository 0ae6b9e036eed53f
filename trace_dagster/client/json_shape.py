"""Checks that the JSON of an answer has the members and types that the client relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Shape: TypeAlias = "type | Sequence[Shape] | Mapping[str, Shape] | None"
"""A type of Python, None for null, a tuple of shapes of which one fits, a list with the shape of each item, or a dict
with the shapes of members.
"""


def checked(found: Any, shape: Shape) -> Any:
    """Return a JSON value. Raises ValueError if it has another shape."""
    if not fits(found, shape):
        raise ValueError("the JSON has another shape")
    return found


def fits(found: Any, shape: Shape) -> bool:
    """Return whether a JSON value has a shape. A member that is missing counts as null; other members are ignored."""
    match shape:
        case tuple():
            return any(fits(found, each) for each in shape)
        case [of_item]:
            return isinstance(found, list) and all(fits(item, of_item) for item in found)
        case Mapping():
            return isinstance(found, dict) and all(fits(found.get(name), each) for name, each in shape.items())
        case None:
            return found is None
    return type(found) is shape  # True is an int to isinstance
