"""Receipts as the receipts root holds them, and their blooms."""

from __future__ import annotations

from collections.abc import Iterable

from tests.support.imitated.encoding import Item, bloom, rlp
from tests.support.imitated.hexadecimal import Json, octets, quantity
from tests.support.imitated.transactions import Family, kind_of


def receipt_leaf(receipt: Json, family: Family = "ethereum") -> bytes:
    """Return the bytes of a receipt."""
    kind = kind_of(receipt)
    body = rlp([_first(receipt), quantity(receipt["cumulativeGasUsed"]), *_logged(receipt), *_tail(receipt, family)])
    return bytes([kind]) + body if kind else body


def _first(receipt: Json) -> Item:
    """Return the first field: the state root before Byzantium, the status since."""
    return octets(receipt["root"]) if receipt.get("status") is None else quantity(receipt["status"])


def _logged(receipt: Json) -> list[Item]:
    logs = [[octets(log["address"]), list(map(octets, log["topics"])), octets(log["data"])] for log in receipt["logs"]]
    return [logs_bloom(receipt["logs"]), logs]


def _tail(receipt: Json, family: Family) -> list[Item]:
    kind = kind_of(receipt)
    if family in {"op", "celo"} and kind == 0x7E and receipt.get("depositReceiptVersion"):
        return [quantity(receipt[name]) for name in ("depositNonce", "depositReceiptVersion")]
    if family == "celo" and kind == 0x7B:
        return [quantity(receipt["baseFee"])]
    return []


def logs_bloom(logs: Iterable[Json]) -> bytes:
    """Return the 256 bytes of the bloom of logs."""
    return bloom(octets(entry) for log in logs for entry in (log["address"], *log["topics"])).to_bytes(256, "big")
