"""The error for rows or answers that differ from the chain: one sentence, then block=, expected= and got=."""

from __future__ import annotations

from trace_dagster.errors import VerificationFailed

_LONGEST_BYTES = 32
_LONGEST_TEXT = 80


def shortened(value: object) -> str:
    """Return a value as text for a log line: bytes as 0x hex, cut if over 32 bytes; others cut at 80 characters."""
    if isinstance(value, bytes):
        if len(value) <= _LONGEST_BYTES:
            return "0x" + value.hex()
        return f"0x{value[:8].hex()}..({len(value)} bytes)"
    if value is None:
        return "null"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    text = str(value)
    text = text if text.isascii() and text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..({len(text)} characters)"


def mismatch(sentence: str, block: int, expected: object, got: object, **more: object) -> VerificationFailed:
    """Return the error for the caller to raise. ``more`` is appended as ``key=value``."""
    return VerificationFailed(sentence, block=block, expected=shortened(expected), got=shortened(got), **more)
