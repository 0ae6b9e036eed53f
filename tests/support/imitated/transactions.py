"""Envelopes of transactions: what the transactions root holds, and whose Keccak is the hash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tests.support.imitated.encoding import Item, keccak, rlp
from tests.support.imitated.hexadecimal import Json, octets, quantity

Family = Literal["ethereum", "op", "arbitrum", "polygon", "celo", "scroll"]
"""Decides what a transaction's type number means."""

_Read = Callable[[Json], Item]


def _number(name: str) -> _Read:
    return lambda each: quantity(each[name])


def _data(name: str) -> _Read:
    return lambda each: octets(each[name])


def _address(name: str) -> _Read:
    """Read an address that may be missing or null: empty bytes then."""
    return lambda each: octets(each.get(name) or "0x")


def _maybe(name: str) -> _Read:
    """Read a quantity that may be missing: zero then, which has the same encoding."""
    return lambda each: quantity(each.get(name) or "0x0")


def _flag(name: str) -> _Read:
    return lambda each: int(bool(each.get(name)))


def _parity(each: Json) -> Item:
    return quantity(each["v"] if each.get("v") is not None else each["yParity"])


def _accesses(each: Json) -> Item:
    return [[octets(entry["address"]), list(map(octets, entry["storageKeys"]))] for entry in each["accessList"]]


def _blobs(each: Json) -> Item:
    return list(map(octets, each["blobVersionedHashes"]))


def _authorizations(each: Json) -> Item:
    return [
        [quantity(one["chainId"]), octets(one["address"]), quantity(one["nonce"]), _parity(one)]
        + [quantity(one[name]) for name in "rs"]
        for one in each["authorizationList"]
    ]


_SIGNATURE: list[_Read] = [_parity, _number("r"), _number("s")]
_CALL: list[_Read] = [_number("gas"), _address("to"), _number("value"), _data("input")]
_FEES: list[_Read] = [_number("maxPriorityFeePerGas"), _number("maxFeePerGas")]
_START: list[_Read] = [_number("chainId"), _number("nonce")]
_LEGACY: list[_Read] = [_number("nonce"), _number("gasPrice"), *_CALL]
_DYNAMIC: list[_Read] = [*_START, *_FEES, *_CALL, _accesses]

_STANDARD: dict[int, list[_Read]] = {
    0: [*_LEGACY, *_SIGNATURE],
    1: [*_START, _number("gasPrice"), *_CALL, _accesses, *_SIGNATURE],
    2: [*_DYNAMIC, *_SIGNATURE],
    3: [*_DYNAMIC, _number("maxFeePerBlobGas"), _blobs, *_SIGNATURE],
    4: [*_DYNAMIC, _authorizations, *_SIGNATURE],
    0x55: [*_START, _number("gasPrice"), *_CALL, _data("novelty"), *_SIGNATURE],  # of a chain that nobody knows
}
_DEPOSIT: list[_Read] = [
    *[_data("sourceHash"), _data("from"), _address("to"), _maybe("mint"), _number("value"), _number("gas")],
    *[_flag("isSystemTx"), _data("input")],
]
_CAP = _number("maxFeePerGas")
_RETRYABLE: list[_Read] = [
    *[_number("chainId"), _data("requestId"), _data("from"), _number("l1BaseFee"), _number("depositValue"), _CAP],
    *[_number("gas"), _address("retryTo"), _number("retryValue"), _data("beneficiary"), _number("maxSubmissionFee")],
    *[_data("refundTo"), _data("retryData")],
]
_OTHERS: dict[str, dict[int, list[_Read]]] = {
    "op": {0x7E: _DEPOSIT},
    "arbitrum": {
        0x64: [_number("chainId"), _data("requestId"), _data("from"), _data("to"), _number("value")],
        0x65: [_number("chainId"), _data("from"), _number("nonce"), _CAP, *_CALL],
        0x66: [_number("chainId"), _data("requestId"), _data("from"), _CAP, *_CALL],
        0x68: [
            *[_number("chainId"), _number("nonce"), _data("from"), _CAP, *_CALL, _data("ticketId")],
            *[_data("refundTo"), _number("maxRefund"), _number("submissionFeeRefund")],
        ],
        0x69: _RETRYABLE,
        0x6A: [_number("chainId"), _data("input")],
    },
    "celo": {0x7E: _DEPOSIT, 0x7B: [*_DYNAMIC, _address("feeCurrency"), *_SIGNATURE]},
    "scroll": {
        0x7E: [_number("queueIndex"), _number("gas"), _address("to"), _number("value"), _data("input"), _data("sender")]
    },
}


def kind_of(each: Json) -> int:
    """Return the type of a transaction or receipt; 0 where the JSON has none (EIP-2718)."""
    return quantity(each.get("type") or "0x0")


def envelope(transaction: Json, family: Family = "ethereum") -> bytes:
    """Return a transaction's bytes. A Polygon state-sync needs its entries under ``_stateSync``."""
    kind = kind_of(transaction)
    if kind == 0:
        return rlp(_items(transaction, 0, family))
    if family == "polygon" and kind == 0x7F:
        return b"\x7f" + rlp(transaction["_stateSync"])
    return bytes([kind]) + rlp(_items(transaction, kind, family))


def transaction_hash(transaction: Json, family: Family = "ethereum") -> bytes:
    """Return a transaction's hash."""
    return keccak(envelope(transaction, family))


def signed_hash(transaction: Json, family: Family = "ethereum") -> bytes:
    """Return what the sender signs: all fields but the signature, and the chain id of EIP-155 if there is one."""
    kind = kind_of(transaction)
    if kind:
        return keccak(bytes([kind]) + rlp(_items(transaction, kind, family)[:-3]))
    protected = [quantity(transaction["chainId"]), 0, 0] if transaction.get("chainId") else []
    return keccak(rlp([read(transaction) for read in _LEGACY] + protected))


def _items(transaction: Json, kind: int, family: Family) -> list[Item]:
    known = _STANDARD | _OTHERS.get(family, {})
    signed = known[kind][-3:] == _SIGNATURE
    if signed and transaction.get("r") is None:  # not signed yet
        transaction = {**transaction, "v": "0x0", "r": "0x0", "s": "0x0"}
    return [read(transaction) for read in known[kind]]
