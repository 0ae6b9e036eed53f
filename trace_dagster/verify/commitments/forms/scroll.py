"""Scroll: messages from L1 (type 0x7e). They carry their sender and no signature."""

from __future__ import annotations

from trace_dagster.verify.commitments.encoding import address, address_or_nil, payload, quantity
from trace_dagster.verify.commitments.rpc_json import RawTransaction


def l1_message(raw: RawTransaction, block: int) -> list[bytes]:
    """Return the encoded fields of type 0x7e."""
    return [
        quantity(raw.queue_index, block),
        quantity(raw.gas, block),
        address_or_nil(raw.to, block),
        quantity(raw.value, block),
        payload(raw.input, block),
        address(raw.sender, block),
    ]
