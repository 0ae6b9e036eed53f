"""Encodes single members of an answer as RLP. ``block`` is the block number that an error shows."""

from __future__ import annotations

from trace_dagster.verify.commitments.hex import data, fixed, number
from trace_dagster.verify.commitments.rlp import EMPTY_TEXT, text, uint
from trace_dagster.verify.commitments.rpc_json import Member


def quantity(value: Member, block: int) -> bytes:
    """Encode a number."""
    return uint(number(value, block))


def quantity_or_zero(value: Member, block: int) -> bytes:
    """Encode a number, or zero for a missing one: chains encode both alike."""
    return EMPTY_TEXT if value is None else uint(number(value, block))


def hash32(value: Member, block: int) -> bytes:
    """Encode a hash of 32 bytes."""
    return text(fixed(value, 32, block))


def address(value: Member, block: int) -> bytes:
    """Encode an address."""
    return text(fixed(value, 20, block))


def address_or_nil(value: Member, block: int) -> bytes:
    """Encode an address, or an empty string for a missing one."""
    return EMPTY_TEXT if value is None else text(fixed(value, 20, block))


def payload(value: Member, block: int) -> bytes:
    """Encode bytes of any length."""
    return text(data(value, block))
