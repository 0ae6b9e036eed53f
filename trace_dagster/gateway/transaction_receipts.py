"""A block's receipts, fetched by transaction from an endpoint that does not offer eth_getBlockReceipts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from trace_dagster.gateway.endpoint_client import EndpointClient
from trace_dagster.gateway.jsonrpc import Answer, failed
from trace_dagster.rpc.http import MAX_ANSWER_BYTES
from trace_dagster.rpc.provider_errors import TOO_LARGE
from trace_dagster.rpc.transaction_hashes import transaction_hashes

RECEIPT = "eth_getTransactionReceipt"

_AT_ONCE = 1000
"""Receipts that are queued together."""

Ask = Callable[[str, bytes], Awaitable[Answer]]
"""Sends one call, a method and its encoded parameters."""


async def receipts_of(client: EndpointClient, block: bytes, ask: Ask) -> Answer:
    """Return the answer that eth_getBlockReceipts would give for a block, which is ``null`` for a block of ``null``.

    If a receipt is missing, the answer is the error.
    """
    if block == b"null":
        return Answer(b"null")
    hashes = transaction_hashes(block)
    if hashes is None:
        return failed(f"rpc endpoint {client.name} gave a block without a list of transactions")
    found: list[Answer] = []
    for start in range(0, len(hashes), _AT_ONCE):
        group = hashes[start : start + _AT_ONCE]
        found += await asyncio.gather(*(ask(RECEIPT, msgspec.json.encode([each])) for each in group))
        wrong = next((each for each in found[start:] if each.result is None), None)
        if wrong is not None:
            return wrong
    return client.reserved(_joined(client, found))


def _joined(client: EndpointClient, found: Sequence[Answer]) -> Answer:
    if any(each.result == b"null" for each in found):
        return failed(f"rpc endpoint {client.name} does not have the receipt of every transaction of a block")
    if sum(each.size for each in found) > MAX_ANSWER_BYTES:
        text = f"rpc endpoint {client.name}: the receipts of a block have more than {MAX_ANSWER_BYTES} bytes"
        return failed(text, reason=TOO_LARGE)
    return Answer(b"[" + b",".join(each.result or b"" for each in found) + b"]")
