"""Converts hex text to RLP and to numbers. Every function that writes returns the position after its output.

-1 means that the input is missing or malformed, or that the output buffer is full. Writing at -1 returns -1.
"""

from __future__ import annotations

import numpy as np

from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.scan import QUOTE, is_word
from trace_dagster.verify.native.types import Bytes, Text, Words

HEAD = 9
"""The longest head of an RLP list. A payload is written after this much space, then moved to its head."""

_MOST_DIGITS = 64
_TRUE, _FALSE = np.frombuffer(b"true", np.uint8), np.frombuffer(b"false", np.uint8)
_NO_DIGIT = 255
_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
for _digit, _char in enumerate(b"0123456789abcdef"):
    _DIGITS[_char] = _digit
    _DIGITS[ord(chr(_char).upper())] = _digit


@native
def _first_digit(text: Text, start: int, end: int) -> int:
    """Return the start of the hex digits in the quoted text at ``start``."""
    if start < 0 or end - start < 4 or text[start] != QUOTE or text[start + 1] != 48 or text[start + 2] != 120:
        return -1
    return start + 3


@native
def _decode(text: Text, start: int, end: int, out: Bytes, at: int) -> int:
    """Write the bytes of an even number of hex digits."""
    if at < 0 or start < 0 or (end - start) % 2 or at + (end - start) // 2 > len(out):
        return -1
    while start < end:
        high, low = _DIGITS[text[start]], _DIGITS[text[start + 1]]
        if high == _NO_DIGIT or low == _NO_DIGIT:
            return -1
        out[at] = (high << 4) | low
        at += 1
        start += 2
    return at


@native
def decode(text: Text, start: int, end: int, out: Bytes, at: int) -> int:
    """Write bytes of any length, without a head."""
    return _decode(text, _first_digit(text, start, end), end - 1, out, at)


@native
def fixed(text: Text, start: int, end: int, size: int, out: Bytes, at: int) -> int:
    """Write exactly ``size`` bytes without a head. Another length could move bytes between fields under one hash."""
    return decode(text, start, end, out, at) if end - start == 2 * size + 4 else -1


@native
def _significant(text: Text, start: int, end: int) -> int:
    """Return the first digit that is not 0 of a number of at most 256 bits, or ``end - 1`` for 0 itself."""
    first = _first_digit(text, start, end)
    if first < 0 or first == end - 1 or end - 1 - first > _MOST_DIGITS:
        return -1
    while first < end - 1 and text[first] == 48:
        first += 1
    return first


@native
def _number(text: Text, start: int, end: int, out: Bytes, at: int) -> int:
    """Write a number as big-endian bytes without leading zeros and without a head. 0 has no bytes."""
    first = _significant(text, start, end)
    if at < 0 or first < 0 or at + 32 > len(out):
        return -1
    if (end - 1 - first) % 2:
        digit = _DIGITS[text[first]]
        if digit == _NO_DIGIT:
            return -1
        out[at] = digit
        at += 1
        first += 1
    return _decode(text, first, end - 1, out, at)


@native
def word(text: Text, start: int, end: int, out: Words, at: int) -> bool:
    """Decode a hex number of at most 64 bits into ``out[at]``. Return False if the text is no such number."""
    first = _significant(text, start, end)
    if first < 0 or end - 1 - first > 16:
        return False
    found = np.uint64(0)
    while first < end - 1:
        digit = _DIGITS[text[first]]
        if digit == _NO_DIGIT:
            return False
        found = (found << np.uint64(4)) | np.uint64(digit)
        first += 1
    out[at] = found
    return True


@native
def byte(text: Text, start: int, end: int) -> int:
    """Return a number of one or two hex digits, such as a type (EIP-2718). 0 if it is missing, -1 for other text."""
    if start < 0:
        return 0
    first = _first_digit(text, start, end)
    if first < 0 or not 1 <= end - 1 - first <= 2:
        return -1
    high = _DIGITS[text[first]] if end - 1 - first == 2 else np.uint8(0)
    low = _DIGITS[text[end - 2]]
    return -1 if high == _NO_DIGIT or low == _NO_DIGIT else 16 * int(high) + int(low)


@native
def wide(text: Text, start: int, end: int, out: Bytes) -> bool:
    """Write a number of at most 256 bits to the 32 bytes of ``out``. Return False if the text is not one."""
    last = _number(text, start, end, out, 0)
    for place in range(31, -1, -1):
        behind = last - 32 + place
        out[place] = out[behind] if behind >= 0 else 0
    return last >= 0


@native
def put_head(base: int, size: int, out: Bytes, at: int) -> int:
    """Write the head of a string (0x80) or list (0xC0) of ``size`` bytes (yellow paper, appendix B)."""
    if at < 0 or at + HEAD > len(out):
        return -1
    if size < 56:
        out[at] = base + size
        return at + 1
    width = 1
    while size >> (8 * width):
        width += 1
    out[at] = base + 55 + width
    for place in range(width):
        out[at + 1 + place] = (size >> (8 * (width - 1 - place))) & 255
    return at + 1 + width


@native
def _headed(out: Bytes, at: int, last: int) -> int:
    """Write the head of at most 55 bytes at ``at + 1`` to ``last``. A single byte below 0x80 has no head."""
    if last < 0:
        return -1
    size = last - at - 1
    if size == 1 and out[at + 1] < 0x80:
        out[at] = out[at + 1]
        return at + 1
    out[at] = 0x80 + size
    return last


@native
def put_number(text: Text, start: int, end: int, out: Bytes, at: int) -> int:
    """Write a number of at most 256 bits, with its head."""
    return _headed(out, at, _number(text, start, end, out, at + 1)) if at >= 0 else -1


@native
def put_bytes(text: Text, start: int, end: int, size: int, out: Bytes, at: int) -> int:
    """Write exactly ``size`` bytes with their head; any length if ``size`` is negative."""
    given = (end - start) // 2 - 2
    if at < 0 or start < 0 or (size >= 0 and size != given):
        return -1
    if given < 56:
        return _headed(out, at, decode(text, start, end, out, at + 1))
    return decode(text, start, end, out, put_head(0x80, given, out, at))


@native
def put_flag(text: Text, start: int, end: int, out: Bytes, at: int) -> int:
    """Write a boolean: 1, or 0 if it is false or missing."""
    if is_word(text, start, end, _TRUE):
        return put_head(0x01, 0, out, at)  # a single byte below 0x80 has no head
    return put_head(0x80, 0, out, at) if start < 0 or is_word(text, start, end, _FALSE) else -1


@native
def put_text(data: Bytes, first: int, last: int, out: Bytes, at: int) -> int:
    """Write bytes with their head."""
    if last - first != 1 or data[first] >= 0x80:
        at = put_head(0x80, last - first, out, at)
    if at < 0 or at + last - first > len(out):
        return -1
    for place in range(last - first):
        out[at + place] = data[first + place]
    return at + last - first


@native
def put_kind(kind: int, out: Bytes, at: int) -> int:
    """Write the type byte of an envelope (EIP-2718). Type 0 has none."""
    if kind == 0 or at < 0 or at >= len(out):
        return at
    out[at] = kind
    return at + 1


@native
def begin(out: Bytes, at: int) -> int:
    """Return the position at which to write the payload of a list that begins at ``at``."""
    return at + HEAD if at >= 0 and at + HEAD <= len(out) else -1


@native
def close(out: Bytes, start: int, last: int) -> int:
    """End the list that began at ``start`` with a payload up to ``last``: write its head and move the payload to it."""
    if last < 0:
        return -1
    first = start + HEAD
    at = put_head(0xC0, last - first, out, start)
    for place in range(last - first):
        out[at + place] = out[first + place]
    return at + last - first
