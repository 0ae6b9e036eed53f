"""Reads JSON that is nested deeper than msgspec allows: call frames of a chain of a thousand calls.

It is slow and lenient about commas and colons, so it is only for answers that msgspec refuses for their depth; the
caller checks every value.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_TOKEN = re.compile(rb'[\[\]{}]|"(?:[^"\\]|\\.)*"|[^\s\[\]{},:"]+')
_CLOSING = {b"]": list, b"}": dict}


def decode_deep(text: bytes, most_depth: int) -> Any:
    """Return the value. Raises ValueError if it is malformed or has more than ``most_depth`` levels."""
    found: list[Any] = []
    opened: list[tuple[Any, list[str]]] = [(found, [])]
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _CLOSING:
            container, keys = opened.pop()
            if keys or not opened or type(container) is not _CLOSING[token]:
                raise ValueError("a bracket has no counterpart")
            continue
        value: Any = {} if token == b"{" else [] if token == b"[" else _scalar(token)
        _put(value, *opened[-1])
        if isinstance(value, dict | list):
            opened.append((value, []))
        if len(opened) > most_depth:
            raise ValueError(f"more than {most_depth} levels")
    if len(opened) != 1 or len(found) != 1:
        raise ValueError("the text does not end")
    return found[0]


def _scalar(token: bytes) -> Any:
    """Return a text, a number or a word. Half of a surrogate pair is malformed: no column can hold it."""
    try:
        return msgspec.json.decode(token)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def _put(value: Any, container: Any, keys: list[str]) -> None:
    """Add a value to its list, or to its object; ``keys`` holds the object's key that waits for a value."""
    if isinstance(container, list):
        container.append(value)
    elif keys:
        container[keys.pop()] = value
    elif isinstance(value, str):
        keys.append(value)
    else:
        raise ValueError("a key is no text")
