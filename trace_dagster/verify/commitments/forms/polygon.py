"""Polygon PoS: transactions that bring state from L1, at most one per block, as the last one.

Before the Madhugiri fork such a transaction is in neither root nor bloom; its hash is derived from the block. Since
then it has type 0x7f and is in both roots, but nodes do not show what its bytes consist of.
"""

from __future__ import annotations

from trace_dagster.errors import UnknownForm, VerificationFailed
from trace_dagster.verify.commitments.hex import data, fixed, number
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rpc_json import RawTransaction
from trace_dagster.verify.mismatch import mismatch

STATE_SYNC = 0x7F
_KEY = b"matic-bor-receipt-"


def is_sprint_start(block: int, delhi: int) -> bool:
    """Return whether a block may have a state-sync transaction before Madhugiri: every 64th, every 16th since Delhi."""
    return block % (16 if block >= delhi else 64) == 0


def derived_hash(block: int, block_hash: bytes) -> bytes:
    """Return the hash of the state-sync transaction of a block before Madhugiri."""
    return keccak(_KEY + block.to_bytes(8, "big") + block_hash)


def check_derived(raw: RawTransaction, block: int) -> None:
    """Raise VerificationFailed unless every member is the one of all such transactions: zero, or empty."""
    for name, value in (("from", raw.sender), ("to", raw.to)):
        if value is not None and any(fixed(value, 20, block)):
            raise mismatch(f"a state-sync transaction has a {name}", block, "the zero address", value)
    members = (raw.value, raw.nonce, raw.gas, raw.v, raw.r, raw.s)
    if any(number(each, block) for each in members if each is not None) or data(raw.input, block):
        raise VerificationFailed("a state-sync transaction has a value, nonce, gas, input or signature", block=block)


def check_state_sync(raw: RawTransaction, block: int) -> None:
    """Raise VerificationFailed if a transaction of type 0x7f shows a value or an input, which it does not have."""
    if number(raw.value, block) or data(raw.input, block):
        raise VerificationFailed("a state-sync transaction has a value or an input", block=block)


def envelope(given: bytes | None, block: int) -> bytes:
    """Return the bytes of a transaction of type 0x7f, which the node was asked for.

    Raises UnknownForm if it was not, or did not give them.
    """
    if given is None:
        raise UnknownForm(
            "the bytes of a state-sync transaction are not known: nodes show them by"
            " eth_getRawTransactionByBlockNumberAndIndex",
            part="transactions", kind=STATE_SYNC, block=block,
        )  # fmt: skip
    if given[:1] != bytes([STATE_SYNC]):
        raise mismatch("the bytes of a state-sync transaction are of another type", block, f"{STATE_SYNC:#x}", given)
    return given
