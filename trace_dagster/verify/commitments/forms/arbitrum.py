"""Arbitrum Nitro: transactions that come from L1 or from the chain itself (types 0x64 to 0x6a), without signature.

They carry their sender. Those of Arbitrum Classic (type 0x78) are legacy transactions, see ``transactions``.
"""

from __future__ import annotations

from trace_dagster.verify.commitments.encoding import address, address_or_nil, hash32, payload, quantity
from trace_dagster.verify.commitments.hex import data, fixed, number
from trace_dagster.verify.commitments.rpc_json import Member, RawTransaction
from trace_dagster.verify.mismatch import mismatch

_ARBOS = bytes.fromhex("00000000000000000000000000000000000a4b05")
_RETRYABLES = bytes.fromhex("000000000000000000000000000000000000006e")
_SUBMIT_RETRYABLE = bytes.fromhex("c9f95d32")
"""Selector of the call that nodes show for a submitted retryable."""


def deposit(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x64."""
    return [
        quantity(raw.chain_id, block),
        hash32(raw.request_id, block),
        address(raw.sender, block),
        address(raw.to, block),
        quantity(raw.value, block),
    ]


def unsigned(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x65."""
    return [quantity(raw.chain_id, block), address(raw.sender, block), quantity(raw.nonce, block), *_call(raw, block)]


def contract(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x66, which has no nonce."""
    head = [quantity(raw.chain_id, block), hash32(raw.request_id, block), address(raw.sender, block)]
    return [*head, *_call(raw, block)]


def retry(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x68."""
    return [
        quantity(raw.chain_id, block),
        quantity(raw.nonce, block),
        address(raw.sender, block),
        *_call(raw, block),
        hash32(raw.ticket_id, block),
        address(raw.refund_to, block),
        quantity(raw.max_refund, block),
        quantity(raw.submission_fee_refund, block),
    ]


def submit_retryable(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x69. Nodes show a derived ``input`` instead of ``retryData``."""
    return [
        quantity(raw.chain_id, block),
        hash32(raw.request_id, block),
        address(raw.sender, block),
        quantity(raw.l1_base_fee, block),
        quantity(raw.deposit_value, block),
        quantity(_fee_cap(raw), block),
        quantity(raw.gas, block),
        address_or_nil(raw.retry_to, block),
        quantity(raw.retry_value, block),
        address(raw.beneficiary, block),
        quantity(raw.max_submission_fee, block),
        address(raw.refund_to, block),
        payload(raw.retry_data, block),
    ]


def internal(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x6a."""
    return [quantity(raw.chain_id, block), payload(raw.input, block)]


def check_deposit(raw: RawTransaction, block: int) -> None:
    """Raise VerificationFailed if a deposit shows an input, which it does not have."""
    _require("input", b"", data(raw.input, block), block)


def check_internal(raw: RawTransaction, block: int) -> None:
    """Raise VerificationFailed unless the members that the hash does not cover are those of every such transaction."""
    _require("from", _ARBOS, fixed(raw.sender, 20, block), block)
    _require("to", _ARBOS, fixed(raw.to, 20, block), block)
    _require("value", 0, number(raw.value, block), block)


def check_submit_retryable(raw: RawTransaction, block: int) -> None:
    """Raise VerificationFailed unless target, value and input are the ones that nodes derive from the hashed fields."""
    _require("to", _RETRYABLES, fixed(raw.to, 20, block), block)
    _require("value", 0, number(raw.value, block), block)
    _require("input", _derived_input(raw, block), data(raw.input, block), block)


def _derived_input(raw: RawTransaction, block: int) -> bytes:
    """Return the ABI encoding of the hashed fields as arguments of the call."""
    retry_data = data(raw.retry_data, block)
    figures = (raw.l1_base_fee, raw.deposit_value, raw.retry_value, _fee_cap(raw), raw.gas, raw.max_submission_fee)
    words = [fixed(raw.request_id, 32, block), *[_word(number(each, block)) for each in figures]]
    retry_to = bytes(20) if raw.retry_to is None else fixed(raw.retry_to, 20, block)
    for each in (fixed(raw.refund_to, 20, block), fixed(raw.beneficiary, 20, block), retry_to):
        words.append(bytes(12) + each)
    words += [_word(32 * (len(words) + 1)), _word(len(retry_data))]
    return _SUBMIT_RETRYABLE + b"".join(words) + retry_data + bytes(-len(retry_data) % 32)


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _call(raw: RawTransaction, block: int) -> list[bytes]:
    return [
        quantity(_fee_cap(raw), block),
        quantity(raw.gas, block),
        address_or_nil(raw.to, block),
        quantity(raw.value, block),
        payload(raw.input, block),
    ]


def _fee_cap(raw: RawTransaction) -> Member:
    """Return the cap on the gas price. Nodes show it as gasPrice too, and for type 0x65 as nothing else."""
    return raw.gas_price if raw.max_fee_per_gas is None else raw.max_fee_per_gas


def _require(member: str, expected: object, got: object, block: int) -> None:
    if got != expected:
        raise mismatch(f"{member} of an Arbitrum transaction is not the one of its type", block, expected, got)
