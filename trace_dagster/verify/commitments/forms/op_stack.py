"""OP Stack: deposits that the chain takes from L1 (type 0x7e). They carry their sender and no signature."""

from __future__ import annotations

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.commitments.encoding import (
    address,
    address_or_nil,
    hash32,
    payload,
    quantity,
    quantity_or_zero,
)
from trace_dagster.verify.commitments.rlp import EMPTY_TEXT, uint
from trace_dagster.verify.commitments.rpc_json import Member, RawTransaction
from trace_dagster.verify.mismatch import shortened

DEPOSIT = 0x7E
CANYON_VERSION = 1
"""depositReceiptVersion since the Canyon fork: from then on the receipts root covers the nonce and this version."""


def deposit(raw: RawTransaction, block: int) -> list[bytes]:
    """Return a deposit's encoded fields. ``mint`` and ``isSystemTx`` may be missing: nil and false."""
    return [
        hash32(raw.source_hash, block),
        address(raw.sender, block),
        address_or_nil(raw.to, block),
        quantity_or_zero(raw.mint, block),
        quantity(raw.value, block),
        quantity(raw.gas, block),
        _flag(raw.is_system_tx, block),
        payload(raw.input, block),
    ]


def receipt_tail(nonce: int, version: int = CANYON_VERSION) -> bytes:
    """Return the fields that a deposit's receipt has behind its logs since Canyon."""
    return uint(nonce) + uint(version)


def _flag(value: Member, block: int) -> bytes:
    if value is None or isinstance(value, bool):
        return b"\x01" if value else EMPTY_TEXT
    raise VerificationFailed("a member of the answer is no boolean", block=block, got=shortened(value))
