"""Finds the fields of JSON objects. A position of -1 means missing, or in a form that this code does not accept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.types import Found, Objects, Table, Text

QUOTE, BACKSLASH, COMMA, COLON = ord('"'), ord("\\"), ord(","), ord(":")
OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = ord("{"), ord("}"), ord("["), ord("]")
_NULL = ord("n")
_SLOTS = 128


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
def is_word(text: Text, at: int, end: int, word: Text) -> bool:
    """Return whether the value from ``at`` to ``end`` is this word, such as ``true``, and white space."""
    if at < 0 or end - at < len(word):
        return False
    for place in range(len(word)):
        if text[at + place] != word[place]:
            return False
    return space(text, at + len(word), end) == end


@native
def more(text: Text, at: int) -> bool:
    """Return whether :func:`following` found an item or a member."""
    return at >= 0 and text[at] != CLOSE and text[at] != CLOSE_LIST


@native
def name(text: Text, at: int, end: int, names: Text, slots: Table) -> int:
    """Return the index of the name that equals the string at ``at``, or -1.

    ``names`` and ``slots`` are what :func:`slotted` returns.
    """
    first, size = at + 1, string(text, at, end) - at - 2
    if size < 1:
        return -1
    slot = (size * slots[_SLOTS, 0] + text[first] * slots[_SLOTS, 1] + text[first + size - 1]) & (_SLOTS - 1)
    which, start, length = slots[slot]
    if length != size:
        return -1
    for place in range(size):
        if names[start + place] != text[first + place]:
            return -1
    return int(which)


def slotted(names: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the names joined, and a table that finds each in one step.

    A name's slot follows from its length, first and last character, and from two factors with which no two names share
    a slot. A slot has the name's index, start and length; the row after the slots has the factors.
    """
    keys = [(len(each), ord(each[0]), ord(each[-1])) for each in names]
    factors = next(
        (one, two)
        for one in range(_SLOTS)
        for two in range(_SLOTS)
        if len({(size * one + first * two + last) % _SLOTS for size, first, last in keys}) == len(names)
    )
    slots = np.zeros((_SLOTS + 1, 3), np.int64)
    start = 0
    for which, (size, first, last) in enumerate(keys):
        slots[(size * factors[0] + first * factors[1] + last) % _SLOTS] = which, start, size
        start += size
    slots[_SLOTS, :2] = factors
    return np.frombuffer("".join(names).encode(), np.uint8), slots


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
def flat(text: Text, at: int, end: int, names: Text, slots: Table, found: Found) -> int:
    """Fill ``found`` and return the position after the object. A repeated member counts last, null as missing."""
    at = _entered(text, at, end, found)
    while more(text, at):
        start = value_of(text, at, end)
        which = name(text, at, end, names, slots)
        behind = value(text, start, end)
        if behind < 0:
            return -1
        if which >= 0 and text[start] != _NULL:
            found[which, 0], found[which, 1] = start, behind
        at = following(text, behind, end)
    return at + 1 if at >= 0 else -1


@native
def deep(
    text: Text, at: int, end: int, names: Text, slots: Table, found: Found,
    list_name: int, inner_names: Text, inner_slots: Table, inner: Objects, row: int,
) -> int:  # fmt: skip
    """Do the same for an object that has a list of objects in member ``list_name``.

    Each object of the list fills a row of ``inner``, from ``row`` on. ``found[list_name]`` gets the first row and the
    row after the last. -1 unless there is exactly one such list.
    """
    at = _entered(text, at, end, found)
    while more(text, at):
        start = value_of(text, at, end)
        which = name(text, at, end, names, slots)
        if which == list_name:
            if found[which, 0] >= 0 or not is_list(text, start, end):
                return -1  # a second list would add rows that no commitment covers
            behind = following(text, start, end)
            found[which, 0] = row
            while more(text, behind):
                if row >= len(inner):
                    return -1
                behind = following(text, flat(text, behind, end, inner_names, inner_slots, inner[row]), end)
                row += 1
            found[which, 1] = row
            behind = behind + 1 if behind >= 0 else -1
        else:
            behind = value(text, start, end)
            if behind >= 0 and which >= 0 and text[start] != _NULL:
                found[which, 0], found[which, 1] = start, behind
        if behind < 0:
            return -1
        at = following(text, behind, end)
    return at + 1 if at >= 0 else -1
