"""Encodes transactions as the chain hashes and signs them: EIP-155, 2718, 2930, 1559, 4844, 7702."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import coincurve

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.commitments.hex import data, fixed, kind, number
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rlp import EMPTY_TEXT, sequence, text, uint
from trace_dagster.verify.commitments.rpc_json import RawAccess, RawAuthorization, RawTransaction
from trace_dagster.verify.mismatch import shortened

_Item = TypeVar("_Item")


class Members(NamedTuple):
    """The fields of a transaction that both its hash and its row need. Amounts are in wei."""

    kind: int
    nonce: int
    gas: int
    to: bytes | None
    value: int
    input: bytes
    price: int | None
    """Only for types 0 and 1; the other types have ``cap`` and ``tip``."""
    cap: int | None
    tip: int | None


def members(raw: RawTransaction, block: int) -> Members:
    """Decode a transaction's fields. Raises UnknownFormat for an unknown type, VerificationFailed for a bad field."""
    tx_type = kind(raw.type, block)
    return Members(
        tx_type,
        number(raw.nonce, block),
        number(raw.gas, block),
        None if raw.to is None else fixed(raw.to, 20, block),
        number(raw.value, block),
        data(raw.input, block),
        number(raw.gas_price, block) if tx_type < 2 else None,
        number(raw.max_fee_per_gas, block) if tx_type >= 2 else None,
        number(raw.max_priority_fee_per_gas, block) if tx_type >= 2 else None,
    )


def envelope(raw: RawTransaction, read: Members, block: int) -> bytes:
    """Return the bytes whose keccak is the transaction's hash. Raises VerificationFailed for malformed fields."""
    fields = _fields(raw, read, block)
    v = raw.v if read.kind == 0 or raw.y_parity is None else raw.y_parity
    fields += [uint(number(v, block)), uint(number(raw.r, block)), uint(number(raw.s, block))]
    return _typed(read.kind, fields)


def recover_sender(raw: RawTransaction, block: int) -> bytes:
    """Return the 20-byte address of the signer. Raises VerificationFailed if the signature belongs to no key."""
    read = members(raw, block)
    tx_type = read.kind
    v = number(raw.v if tx_type == 0 or raw.y_parity is None else raw.y_parity, block)
    fields = _fields(raw, read, block)
    if tx_type == 0 and v >= 35:  # EIP-155: v contains the chain id, and the signed fields end in (chain id, 0, 0)
        fields += [uint((v - 35) // 2), EMPTY_TEXT, EMPTY_TEXT]
    parity = v if tx_type else (v - 35) % 2 if v >= 35 else v - 27
    signature = number(raw.r, block).to_bytes(32, "big") + number(raw.s, block).to_bytes(32, "big")
    digest = keccak(_typed(tx_type, fields))
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature + bytes([parity]), digest, hasher=None)
    except Exception as error:  # coincurve raises plain Exceptions
        raise VerificationFailed(
            "a transaction's signature belongs to no key",
            block=block,
            hash=shortened(raw.hash),
            reason=shortened(error),
        ) from None
    return keccak(key.format(compressed=False)[1:])[12:]


def _typed(tx_type: int, fields: list[bytes]) -> bytes:
    payload = sequence(*fields)
    return bytes([tx_type]) + payload if tx_type else payload


def _fields(raw: RawTransaction, read: Members, block: int) -> list[bytes]:
    """Return all encoded fields except the signature, in the order of the type's EIP."""
    to = EMPTY_TEXT if read.to is None else text(read.to)
    body = [uint(read.gas), to, uint(read.value), text(read.input)]
    nonce = uint(read.nonce)
    if read.kind == 0:
        return [nonce, uint(read.price or 0), *body]
    head, access = uint(number(raw.chain_id, block)), _access_list(raw.access_list, block)
    if read.kind == 1:
        return [head, nonce, uint(read.price or 0), *body, access]
    fees = [uint(read.tip or 0), uint(read.cap or 0)]
    return [head, nonce, *fees, *body, access, *_tail(raw, read.kind, block)]


def _tail(raw: RawTransaction, tx_type: int, block: int) -> list[bytes]:
    if tx_type == 3:
        hashes = [text(fixed(each, 32, block)) for each in _given(raw.blob_versioned_hashes, block)]
        return [uint(number(raw.max_fee_per_blob_gas, block)), sequence(*hashes)]
    if tx_type == 4:
        return [sequence(*[_authorization(each, block) for each in _given(raw.authorization_list, block)])]
    return []


def _access_list(entries: list[RawAccess] | None, block: int) -> bytes:
    return sequence(*[_access(entry, block) for entry in _given(entries, block)])


def _access(entry: RawAccess, block: int) -> bytes:
    keys = [text(fixed(key, 32, block)) for key in entry.storage_keys]
    return sequence(text(fixed(entry.address, 20, block)), sequence(*keys))


def _authorization(entry: RawAuthorization, block: int) -> bytes:
    parity = entry.y_parity if entry.y_parity is not None else entry.v
    numbers = [uint(number(each, block)) for each in (entry.nonce, parity, entry.r, entry.s)]
    return sequence(uint(number(entry.chain_id, block)), text(fixed(entry.address, 20, block)), *numbers)


def _given(items: list[_Item] | None, block: int) -> list[_Item]:
    if items is None:
        raise VerificationFailed("a transaction lacks a list its type has", block=block)
    return items
