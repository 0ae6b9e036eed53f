"""Recovers senders from signatures."""

from __future__ import annotations

import coincurve

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.commitments.envelopes import fields, members, typed
from trace_dagster.verify.commitments.hex import kind, number
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rlp import EMPTY_TEXT, uint
from trace_dagster.verify.commitments.rpc_json import RawTransaction
from trace_dagster.verify.mismatch import shortened


def recover_sender(raw: RawTransaction, block: int) -> bytes:
    """Return the 20-byte address that signed a transaction of types 0 to 4.

    Raises VerificationFailed if the signature belongs to no key.
    """
    tx_type = kind(raw.type, block)
    return signer_of(raw, tx_type, fields(raw, members(raw, tx_type, block), block), block)


def signer_of(raw: RawTransaction, tx_type: int, unsigned: list[bytes], block: int) -> bytes:
    """Return the address whose key signed these encoded fields. Raises VerificationFailed if there is none."""
    v = number(raw.v if tx_type == 0 or raw.y_parity is None else raw.y_parity, block)
    signed = list(unsigned)
    if tx_type == 0 and v >= 35:  # EIP-155: v contains the chain id, and the signed fields end in (chain id, 0, 0)
        signed += [uint((v - 35) // 2), EMPTY_TEXT, EMPTY_TEXT]
    parity = v if tx_type else (v - 35) % 2 if v >= 35 else v - 27
    signature = number(raw.r, block).to_bytes(32, "big") + number(raw.s, block).to_bytes(32, "big")
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature + bytes([parity]), keccak(typed(tx_type, signed)), hasher=None
        )
    except Exception as error:  # coincurve raises plain Exceptions
        raise VerificationFailed(
            "a transaction's signature belongs to no key",
            block=block,
            hash=shortened(raw.hash),
            reason=shortened(error),
        ) from None
    return keccak(key.format(compressed=False)[1:])[12:]


def is_unsigned(raw: RawTransaction, block: int) -> bool:
    """Return whether r and s are zero or missing, so that no key can have signed."""
    return not any(number(each, block) for each in (raw.r, raw.s) if each is not None)
