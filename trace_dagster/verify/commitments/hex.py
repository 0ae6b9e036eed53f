"""Converts the members of an answer to bytes and numbers. ``block`` is the block number that an error shows.

A member is hex text. A hostile answer may hold any other JSON value instead, which raises VerificationFailed.
"""

from __future__ import annotations

from trace_dagster.datasets.chain import MOST_TYPES
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import mismatch, shortened

_LONGEST_NUMBER = 2 + 64


def data(text: object, block: int) -> bytes:
    """Return bytes of any length. Raises VerificationFailed if the text is missing or not hex."""
    try:
        if isinstance(text, str) and text[:2] == "0x":
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise VerificationFailed("a member of the answer is missing or no hex", block=block, got=shortened(text))


def fixed(text: object, size: int, block: int) -> bytes:
    """Return exactly ``size`` bytes. Raises VerificationFailed if the text is missing, not hex or of another length.

    Another length could move bytes between fields under the same hash.
    """
    try:
        if isinstance(text, str) and text[:2] == "0x" and len(found := bytes.fromhex(text[2:])) == size:
            return found
    except ValueError:
        pass
    raise mismatch("a member of the answer is missing or not of its length", block, f"{size} bytes of hex", text)


def number(text: object, block: int) -> int:
    """Return a number of at most 256 bits. Raises VerificationFailed if the text is missing, not hex or longer."""
    try:
        if isinstance(text, str) and text[:2] == "0x" and len(text) <= _LONGEST_NUMBER:
            return int(text, 16)
    except ValueError:
        pass
    raise VerificationFailed("a member of the answer is missing or no number", block=block, got=shortened(text))


def kind(text: object, block: int) -> int:
    """Return a transaction's type; a missing one means legacy (EIP-2718). Raises VerificationFailed above 255."""
    found = 0 if text is None else number(text, block)
    if not 0 <= found < MOST_TYPES:
        raise mismatch("a transaction's type is no type", block, f"below {MOST_TYPES}", found)
    return found
