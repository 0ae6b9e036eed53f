"""The text forms of JSON-RPC: quantities and data."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

ZERO_ADDRESS = "0x" + "00" * 20
ZERO_HASH = "0x" + "00" * 32


def quantity(text: str) -> int:
    """Return the number that a quantity names."""
    return int(text, 16)


def octets(text: str) -> bytes:
    """Return the bytes of data."""
    return bytes.fromhex(text.removeprefix("0x"))


def shown(content: bytes) -> str:
    """Return bytes as data."""
    return "0x" + content.hex()
