"""The text of a difference: one sentence, then block=, expected= and got=, short enough for a log line."""

from __future__ import annotations

from trace_dagster.errors import VerificationFailed

_LONGEST_BYTES = 32
_LONGEST_TEXT = 80


def shown(value: object) -> str:
    """Return bytes as 0x.., cut after 32 bytes, and other values as text, cut after 80 characters."""
    if isinstance(value, bytes):
        if len(value) <= _LONGEST_BYTES:
            return "0x" + value.hex()
        return f"0x{value[:8].hex()}..({len(value)} bytes)"
    if value is None:
        return "null"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    said = str(value)
    said = said if said.isascii() and said.isprintable() else ascii(said)
    return said if len(said) <= _LONGEST_TEXT else f"{said[:_LONGEST_TEXT]}..({len(said)} characters)"


def disagrees(sentence: str, block: int, expected: object, got: object, **more: object) -> VerificationFailed:
    """Return the error for a difference; the caller raises it."""
    return VerificationFailed(sentence, block=block, expected=shown(expected), got=shown(got), **more)
