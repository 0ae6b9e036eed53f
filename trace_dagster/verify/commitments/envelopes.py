"""Encodes transactions as the chain hashes and signs them: EIP-155, 2718, 2930, 1559, 4844, 7702."""

from __future__ import annotations

from typing import NamedTuple

from trace_dagster.verify.commitments.encoding import address, quantity
from trace_dagster.verify.commitments.hex import data, fixed, number
from trace_dagster.verify.commitments.rlp import EMPTY_TEXT, sequence, text, uint
from trace_dagster.verify.commitments.rpc_json import (
    Member,
    RawAccess,
    RawAuthorization,
    RawTransaction,
    converted,
)


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


def members(raw: RawTransaction, kind: int, block: int) -> Members:
    """Decode the fields of a transaction of types 0 to 4. Raises VerificationFailed for a bad field."""
    return Members(
        kind,
        number(raw.nonce, block),
        number(raw.gas, block),
        None if raw.to is None else fixed(raw.to, 20, block),
        number(raw.value, block),
        data(raw.input, block),
        number(raw.gas_price, block) if kind < 2 else None,
        number(raw.max_fee_per_gas, block) if kind >= 2 else None,
        number(raw.max_priority_fee_per_gas, block) if kind >= 2 else None,
    )


def envelope(raw: RawTransaction, read: Members, block: int) -> bytes:
    """Return the bytes whose keccak is the transaction's hash. Raises VerificationFailed for malformed fields."""
    return typed(read.kind, [*fields(raw, read, block), *signature(raw, read.kind, block)])


def signature(raw: RawTransaction, kind: int, block: int) -> list[bytes]:
    """Return the encoded signature. Typed transactions have the parity as ``yParity`` or as ``v``."""
    v = raw.v if kind == 0 or raw.y_parity is None else raw.y_parity
    return [uint(number(v, block)), uint(number(raw.r, block)), uint(number(raw.s, block))]


def typed(kind: int, encoded: list[bytes]) -> bytes:
    """Return a list of encoded fields behind its type byte (EIP-2718); legacy transactions have none."""
    payload = sequence(*encoded)
    return bytes([kind]) + payload if kind else payload


def fields(raw: RawTransaction, read: Members, block: int) -> list[bytes]:
    """Return all encoded fields except the signature, in the order of the type's EIP."""
    to = EMPTY_TEXT if read.to is None else text(read.to)
    body = [uint(read.gas), to, uint(read.value), text(read.input)]
    nonce = uint(read.nonce)
    if read.kind == 0:
        return [nonce, uint(read.price or 0), *body]
    head, access = uint(number(raw.chain_id, block)), access_list(raw.access_list, block)
    if read.kind == 1:
        return [head, nonce, uint(read.price or 0), *body, access]
    fees = [uint(read.tip or 0), uint(read.cap or 0)]
    return [head, nonce, *fees, *body, access, *_tail(raw, read.kind, block)]


def access_list(entries: Member, block: int) -> bytes:
    """Encode an access list (EIP-2930)."""
    if entries == []:
        return sequence()
    return sequence(*[_access(entry, block) for entry in converted(entries, RawAccess, block)])


def _tail(raw: RawTransaction, tx_type: int, block: int) -> list[bytes]:
    if tx_type == 3:
        hashes = [text(fixed(each, 32, block)) for each in converted(raw.blob_versioned_hashes, str, block)]
        return [quantity(raw.max_fee_per_blob_gas, block), sequence(*hashes)]
    if tx_type == 4:
        entries = converted(raw.authorization_list, RawAuthorization, block)
        return [sequence(*[_authorization(each, block) for each in entries])]
    return []


def _access(entry: RawAccess, block: int) -> bytes:
    keys = [text(fixed(key, 32, block)) for key in entry.storage_keys]
    return sequence(address(entry.address, block), sequence(*keys))


def _authorization(entry: RawAuthorization, block: int) -> bytes:
    parity = entry.y_parity if entry.y_parity is not None else entry.v
    numbers = [quantity(each, block) for each in (entry.nonce, parity, entry.r, entry.s)]
    return sequence(quantity(entry.chain_id, block), address(entry.address, block), *numbers)
