"""Changed blocks that are valid again: hashes, roots and bloom are computed anew from the members of the answers.

The encoder is that of the imitated chains, which shares no code with ``trace_dagster.verify``.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tests.support.imitated.encoding import keccak, list_root
from tests.support.imitated.headers import HeaderKind, with_hash
from tests.support.imitated.hexadecimal import Json, shown
from tests.support.imitated.receipts import logs_bloom, receipt_leaf
from tests.support.imitated.transactions import Family, envelope

Answers = tuple[Json, list[Json]]
"""A block with whole transactions, and its receipts."""


def resealed(
    block: Json, receipts: list[Json], family: Family = "ethereum", header: HeaderKind = "ethereum"
) -> Answers:
    """Return the answers with the hashes, roots and bloom that their other members give."""
    block, receipts = deepcopy(block), deepcopy(receipts)
    encoded = [envelope(each, family) for each in block["transactions"]]
    for transaction, receipt, raw in zip(block["transactions"], receipts, encoded, strict=True):
        transaction["hash"] = receipt["transactionHash"] = shown(keccak(raw))
        receipt["logsBloom"] = shown(logs_bloom(receipt["logs"]))
    block |= {
        "transactionsRoot": shown(list_root(encoded)),
        "receiptsRoot": shown(list_root([receipt_leaf(each, family) for each in receipts])),
        "logsBloom": shown(logs_bloom(log for receipt in receipts for log in receipt["logs"])),
    }
    return with_hash(block, header), receipts


def with_deposit(block: Json, receipts: list[Json], at: int = 0, **members: Any) -> Answers:
    """Return the block with an OP deposit in place of the transaction at an index, with the same call and logs.

    ``members`` are further members of the deposit; None removes one. A ``version`` is the receipt's.
    """
    version = members.pop("version", "0x1")
    deposit = {
        "type": "0x7e", "sourceHash": "0x" + "5e" * 32, "mint": "0x0", "gasPrice": "0x0", "v": "0x0", "r": "0x0",
        "s": "0x0",
    } | members  # fmt: skip
    block, receipts = _with_call(block, receipts, at, deposit)
    if version is not None:
        nonce = block["transactions"][at]["nonce"]
        receipts[at] |= {"depositNonce": nonce, "depositReceiptVersion": version}
    return resealed(block, receipts, "op")


def with_call_of_arbitrum(block: Json, receipts: list[Json], at: int, **members: Any) -> Answers:
    """Return the block with one of Arbitrum's own transactions at an index, with the same call and logs.

    Some nodes show the fee cap as ``gasPrice`` only, as here if ``members`` have no ``maxFeePerGas``.
    """
    call = {"chainId": "0xa4b1", "gasPrice": "0x5f5e100"} | members
    block, receipts = _with_call(block, receipts, at, {"maxFeePerGas": call["gasPrice"]} | call)
    block, receipts = resealed(block, receipts, "arbitrum")
    if "maxFeePerGas" not in members:
        block["transactions"][at].pop("maxFeePerGas", None)
    return block, receipts


def _with_call(block: Json, receipts: list[Json], at: int, members: Json) -> Answers:
    block, receipts = deepcopy(block), deepcopy(receipts)
    before = block["transactions"][at]
    kept = ("blockHash", "blockNumber", "transactionIndex", "from", "to", "value", "gas", "input", "nonce")
    call = {name: before[name] for name in kept} | members
    block["transactions"][at] = {name: value for name, value in call.items() if value is not None}
    receipts[at]["type"] = members["type"]
    return block, receipts
