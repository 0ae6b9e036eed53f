"""Celo: transactions that pay for gas in another currency. They are signed like Ethereum's."""

from __future__ import annotations

from trace_dagster.verify.commitments.encoding import address_or_nil, payload, quantity, quantity_or_zero
from trace_dagster.verify.commitments.envelopes import access_list
from trace_dagster.verify.commitments.rpc_json import RawTransaction


def fee_currency(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x7b (CIP-64), without the signature."""
    currency = address_or_nil(raw.fee_currency, block)
    return [*_dynamic_fees(raw, block), *_call(raw, block), access_list(raw.access_list, block), currency]


def fee_in_celo(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x7a (CIP-66), without the signature."""
    return [*fee_currency(raw, block), quantity_or_zero(raw.max_fee_in_fee_currency, block)]


def fee_currency_with_gateway(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x7c (CIP-42), without the signature."""
    currency = _currency_and_gateway(raw, block)
    return [*_dynamic_fees(raw, block), *currency, *_call(raw, block), access_list(raw.access_list, block)]


def legacy(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of Celo's own legacy transaction, without the signature."""
    head = [quantity(raw.nonce, block), quantity(raw.gas_price, block), quantity(raw.gas, block)]
    return [*head, *_currency_and_gateway(raw, block), *_call(raw, block)]


def receipt_tail(fee: object, block: int) -> bytes:
    """Return the field that a receipt of types 0x7b and 0x7a has behind its logs on Celo's L2."""
    return quantity(fee, block)


def _dynamic_fees(raw: RawTransaction, block: int) -> list[bytes]:
    members = (raw.chain_id, raw.nonce, raw.max_priority_fee_per_gas, raw.max_fee_per_gas, raw.gas)
    return [quantity(each, block) for each in members]


def _currency_and_gateway(raw: RawTransaction, block: int) -> list[bytes]:
    currency, recipient = (address_or_nil(each, block) for each in (raw.fee_currency, raw.gateway_fee_recipient))
    return [currency, recipient, quantity_or_zero(raw.gateway_fee, block)]


def _call(raw: RawTransaction, block: int) -> list[bytes]:
    return [address_or_nil(raw.to, block), quantity(raw.value, block), payload(raw.input, block)]
