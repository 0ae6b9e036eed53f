"""The transactions of a block in JSON: their hashes, whether the block was asked for with them or without."""

from __future__ import annotations

import msgspec

MOST_TRANSACTIONS = 100_000
"""Transactions of a block; an endpoint that claims more would only keep this process busy with their receipts."""


class _TransactionHash(msgspec.Struct):
    hash: str


class _BlockTransactions(msgspec.Struct):
    transactions: list[str | _TransactionHash]


_DECODER = msgspec.json.Decoder(_BlockTransactions)


def transaction_hashes(block: bytes | msgspec.Raw) -> list[str] | None:
    """Return the hashes of a block's transactions, in order.

    Returns None if ``block`` is no block with a list of them, or if it lists more than any chain has in a block.
    """
    try:
        inside = _DECODER.decode(block).transactions
    except (msgspec.MsgspecError, RecursionError):
        return None
    if len(inside) > MOST_TRANSACTIONS:
        return None
    return [each if isinstance(each, str) else each.hash for each in inside]
