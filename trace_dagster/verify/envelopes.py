"""Transactions as the chain hashes and signs them: EIP-155, 2718, 2930, 1559, 4844, 7702."""

from __future__ import annotations

from typing import TypeVar

import coincurve

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.facts import shown
from trace_dagster.verify.keccak import keccak
from trace_dagster.verify.raw import RawAccess, RawAuthorization, RawTransaction
from trace_dagster.verify.rlp import EMPTY_TEXT, sequence, text, uint
from trace_dagster.verify.values import data, fixed, kind, number

_Item = TypeVar("_Item")


def envelope(raw: RawTransaction, block: int) -> bytes:
    """The bytes whose keccak is the transaction's hash.

    Raises UnknownFormat for a type not known here, VerificationFailed for members of the wrong form.
    """
    of = kind(raw.type, block)
    fields = _fields(raw, of, block)
    v = raw.v if of == 0 or raw.y_parity is None else raw.y_parity
    fields += [uint(number(v, block)), uint(number(raw.r, block)), uint(number(raw.s, block))]
    return _typed(of, fields)


def recover_sender(raw: RawTransaction, block: int) -> bytes:
    """The address whose key signed: 20 bytes. Raises VerificationFailed when no key can have."""
    of = kind(raw.type, block)
    v = number(raw.v if of == 0 or raw.y_parity is None else raw.y_parity, block)
    fields = _fields(raw, of, block)
    if of == 0 and v >= 35:  # EIP-155: v carries the chain, and the signed fields end in (chain id, 0, 0)
        fields += [uint((v - 35) // 2), EMPTY_TEXT, EMPTY_TEXT]
    parity = v if of else (v - 35) % 2 if v >= 35 else v - 27
    signature = number(raw.r, block).to_bytes(32, "big") + number(raw.s, block).to_bytes(32, "big")
    digest = keccak(_typed(of, fields))
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature + bytes([parity]), digest, hasher=None)
    except Exception as error:  # coincurve raises plain Exceptions
        raise VerificationFailed(
            "a transaction's signature belongs to no key", block=block, hash=shown(raw.hash), reason=shown(error)
        ) from None
    return keccak(key.format(compressed=False)[1:])[12:]


def _typed(of: int, fields: list[bytes]) -> bytes:
    payload = sequence(*fields)
    return bytes([of]) + payload if of else payload


def _fields(raw: RawTransaction, of: int, block: int) -> list[bytes]:
    """All but the signature, encoded, in the order of the type's EIP."""
    body = [
        uint(number(raw.gas, block)),
        EMPTY_TEXT if raw.to is None else text(fixed(raw.to, 20, block)),
        uint(number(raw.value, block)),
        text(data(raw.input, block)),
    ]
    nonce = uint(number(raw.nonce, block))
    if of == 0:
        return [nonce, uint(number(raw.gas_price, block)), *body]
    head, access = uint(number(raw.chain_id, block)), _access_list(raw.access_list, block)
    if of == 1:
        return [head, nonce, uint(number(raw.gas_price, block)), *body, access]
    fees = [uint(number(raw.max_priority_fee_per_gas, block)), uint(number(raw.max_fee_per_gas, block))]
    return [head, nonce, *fees, *body, access, *_tail(raw, of, block)]


def _tail(raw: RawTransaction, of: int, block: int) -> list[bytes]:
    if of == 3:
        hashes = [text(fixed(each, 32, block)) for each in _given(raw.blob_versioned_hashes, block)]
        return [uint(number(raw.max_fee_per_blob_gas, block)), sequence(*hashes)]
    if of == 4:
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
