"""Hyperliquid: addresses of the chain itself. Some nodes show their transactions in blocks; no root covers them."""

from __future__ import annotations

from trace_dagster.verify.commitments.hex import fixed
from trace_dagster.verify.commitments.rpc_json import Member

_NATIVE = b"\x22" * 20
_TOKENS = b"\x20" + bytes(11)
"""The first bytes of a token's address; its index follows."""


def is_system(sender: Member, block: int) -> bool:
    """Return whether a transaction or receipt is of one of the chain's own addresses."""
    if sender is None:
        return False
    address = fixed(sender, 20, block)
    return address == _NATIVE or address.startswith(_TOKENS)
