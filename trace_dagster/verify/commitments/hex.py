"""Converts the hex text of an answer to bytes and numbers. ``block`` is the block number that an error shows."""

from __future__ import annotations

from trace_dagster.errors import UnknownFormat, VerificationFailed
from trace_dagster.verify.mismatch import mismatch, shortened

KINDS = range(5)
"""Known transaction types: legacy, EIP-2930, EIP-1559, EIP-4844, EIP-7702."""

_LONGEST_NUMBER = 2 + 64


def data(text: str | None, block: int) -> bytes:
    """Return bytes of any length. Raises VerificationFailed if the text is missing or not hex."""
    try:
        if text is not None and text[:2] == "0x":
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise VerificationFailed("a member of the answer is missing or no hex", block=block, got=shortened(text))


def fixed(text: str | None, size: int, block: int) -> bytes:
    """Return exactly ``size`` bytes. Raises VerificationFailed if the text is missing, not hex or of another length.

    Another length could move bytes between fields under the same hash.
    """
    try:
        if text is not None and text[:2] == "0x" and len(found := bytes.fromhex(text[2:])) == size:
            return found
    except ValueError:
        pass
    raise mismatch("a member of the answer is missing or not of its length", block, f"{size} bytes of hex", text)


def number(text: str | None, block: int) -> int:
    """Return a number of at most 256 bits. Raises VerificationFailed if the text is missing, not hex or longer."""
    try:
        if text is not None and text[:2] == "0x" and len(text) <= _LONGEST_NUMBER:
            return int(text, 16)
    except ValueError:
        pass
    raise VerificationFailed("a member of the answer is missing or no number", block=block, got=shortened(text))


def kind(text: str | None, block: int) -> int:
    """Return a transaction's type; a missing one means legacy (EIP-2718). Raises UnknownFormat for an unknown type."""
    found = 0 if text is None else number(text, block)
    if found not in KINDS:
        raise unknown_kind(found, block)
    return found


def unknown_kind(found: int, block: int) -> UnknownFormat:
    """Return the error for a transaction type that this version cannot encode."""
    return UnknownFormat("a transaction has a type this version does not know", block=block, type=shortened(found))
