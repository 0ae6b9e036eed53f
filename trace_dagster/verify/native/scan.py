"""Finds the fields of JSON objects. A position of -1 means missing, or in a form that this code does not accept."""

from __future__ import annotations

from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.types import Ends, Found, Objects, Text

QUOTE, BACKSLASH, COMMA, COLON = ord('"'), ord("\\"), ord(","), ord(":")
OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = ord("{"), ord("}"), ord("["), ord("]")
_NULL = ord("n")


@native
def space(text: Text, at: int, end: int) -> int:
    """Return the position after white space."""
    while at < end and text[at] <= 32:
        at += 1
    return at


@native
def string(text: Text, at: int, end: int) -> int:
    """Return the position after the string at ``at``, or -1 if it has an escape, which hex never needs."""
    if at < 0 or at >= end or text[at] != QUOTE:
        return -1
    at += 1
    while at < end and text[at] != QUOTE:
        if text[at] == BACKSLASH:
            return -1
        at += 1
    return at + 1 if at < end else -1


@native
def value(text: Text, at: int, end: int) -> int:
    """Return the position after the value at ``at``."""
    depth = 0
    while 0 <= at < end:
        char = text[at]
        if char == QUOTE:
            at = string(text, at, end) - 1
            if at < 0:
                return -1
        elif char == OPEN or char == OPEN_LIST:
            depth += 1
        elif char == CLOSE or char == CLOSE_LIST:
            depth -= 1
            if depth < 0:
                return at  # after a number or a word
        elif char == COMMA and depth == 0:
            return at
        at += 1
        if depth == 0 and (char == QUOTE or char == CLOSE or char == CLOSE_LIST):
            return at
    return -1


@native
def following(text: Text, at: int, end: int) -> int:
    """Return the position of the next item of a list or member of an object, or of the closing bracket.

    ``at`` is the opening bracket or the position after an item. -1 if neither a comma nor a bracket follows.
    """
    if at < 0:
        return -1
    at = space(text, at, end)
    if at >= end:
        return -1
    char = text[at]
    if char == CLOSE or char == CLOSE_LIST:
        return at
    if char != COMMA and char != OPEN and char != OPEN_LIST:
        return -1
    at = space(text, at + 1, end)
    return at if at < end else -1


@native
def is_list(text: Text, at: int, end: int) -> bool:
    """Return whether a list begins at ``at``."""
    return 0 <= at < end and text[at] == OPEN_LIST


@native
def more(text: Text, at: int) -> bool:
    """Return whether :func:`following` found an item or a member."""
    return at >= 0 and text[at] != CLOSE and text[at] != CLOSE_LIST


@native
def name(text: Text, at: int, end: int, names: Text, ends: Ends, hint: int) -> int:
    """Return the index of the name that equals the string at ``at``, or -1.

    ``names`` are concatenated; ``ends`` is the end of each. The search begins at ``hint``, because members come in
    nearly the same order each time.
    """
    first, size, count = at + 1, string(text, at, end) - at - 2, ends.size
    for step in range(count):
        which = hint + step
        if which >= count:
            which -= count
        start = 0 if which == 0 else ends[which - 1]
        if ends[which] - start == size:
            place = 0
            while place < size and names[start + place] == text[first + place]:
                place += 1
            if place == size:
                return which
    return -1


@native
def value_of(text: Text, at: int, end: int) -> int:
    """Return the start of the value of the member at ``at``."""
    at = string(text, at, end)
    if at < 0:
        return -1
    at = space(text, at, end)
    return space(text, at + 1, end) if at < end and text[at] == COLON else -1


@native
def _entered(text: Text, at: int, end: int, found: Found) -> int:
    """Reset ``found`` and return the first member of the object at ``at``, or its closing brace."""
    found[:] = -1
    return following(text, at, end) if 0 <= at < end and text[at] == OPEN else -1


@native
def flat(text: Text, at: int, end: int, names: Text, ends: Ends, found: Found) -> int:
    """Fill ``found`` and return the position after the object. A repeated member counts last, null as missing."""
    hint = 0
    at = _entered(text, at, end, found)
    while more(text, at):
        start = value_of(text, at, end)
        which = name(text, at, end, names, ends, hint)
        behind = value(text, start, end)
        if behind < 0:
            return -1
        if which >= 0:
            hint = which + 1
            if text[start] != _NULL:
                found[which, 0], found[which, 1] = start, behind
        at = following(text, behind, end)
    return at + 1 if at >= 0 else -1


@native
def deep(
    text: Text, at: int, end: int, names: Text, ends: Ends, found: Found,
    list_name: int, inner_names: Text, inner_ends: Ends, inner: Objects, row: int,
) -> int:  # fmt: skip
    """Do the same for an object that has a list of objects in member ``list_name``.

    Each object of the list fills a row of ``inner``, from ``row`` on. ``found[list_name]`` gets the first row and the
    row after the last. -1 unless there is exactly one such list.
    """
    hint = 0
    at = _entered(text, at, end, found)
    while more(text, at):
        start = value_of(text, at, end)
        which = name(text, at, end, names, ends, hint)
        if which == list_name:
            if found[which, 0] >= 0 or not is_list(text, start, end):
                return -1  # a second list would add rows that no commitment covers
            behind = following(text, start, end)
            found[which, 0] = row
            while more(text, behind):
                if row >= len(inner):
                    return -1
                behind = following(text, flat(text, behind, end, inner_names, inner_ends, inner[row]), end)
                row += 1
            found[which, 1] = row
            behind = behind + 1 if behind >= 0 else -1
        else:
            behind = value(text, start, end)
            if behind >= 0 and which >= 0 and text[start] != _NULL:
                found[which, 0], found[which, 1] = start, behind
        if behind < 0:
            return -1
        hint = which + 1
        at = following(text, behind, end)
    return at + 1 if at >= 0 else -1
