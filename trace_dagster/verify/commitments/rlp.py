"""RLP encoding (yellow paper, appendix B). Heads of short items come from tables, because most items are short."""

from __future__ import annotations

_SHORT_TEXT = [bytes([0x80 + size]) for size in range(56)]
_SHORT_LIST = [bytes([0xC0 + size]) for size in range(56)]
_SMALL = [b"\x80", *(bytes([value]) for value in range(1, 128))]

_LONGEST_KEPT = 1024
"""Items below this size take their head from a table. Most receipts, trie nodes and inputs are shorter."""

EMPTY_TEXT = b"\x80"
EMPTY_LIST = b"\xc0"


def text(data: bytes) -> bytes:
    """Encode a byte string."""
    size = len(data)
    if size < 56:
        return data if size == 1 and data < b"\x80" else _SHORT_TEXT[size] + data
    return (_LONG_TEXT[size] if size < _LONGEST_KEPT else _long(0xB7, size)) + data


def uint(value: int) -> bytes:
    """Encode a number, big-endian without leading zeros. Raises OverflowError if it is negative."""
    if 0 <= value < 128:
        return _SMALL[value]
    return text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def sequence(*pieces: bytes) -> bytes:
    """Encode a list of items that are already encoded."""
    payload = b"".join(pieces)
    size = len(payload)
    return (_LISTS[size] if size < _LONGEST_KEPT else _long(0xF7, size)) + payload


def _long(base: int, size: int) -> bytes:
    width = (size.bit_length() + 7) // 8
    return bytes([base + width]) + size.to_bytes(width, "big")


_LONG_TEXT = [_long(0xB7, size) for size in range(_LONGEST_KEPT)]
_LISTS = [_SHORT_LIST[size] if size < 56 else _long(0xF7, size) for size in range(_LONGEST_KEPT)]
