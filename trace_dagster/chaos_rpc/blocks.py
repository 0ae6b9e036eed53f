"""Incorrect answers that are correct for another block: a neighbour, or the same number on a fork."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from trace_dagster.chaos_rpc.shapes import (
    Answer,
    FaultContext,
    Request,
    first_block,
    moved,
    with_result,
)


def neighbour(request: Request, rng: Random) -> Request | None:
    """Return the request for the block before or after, or None if the request names no block by number."""
    by = rng.choice((-1, 1))
    return moved(request, by) or moved(request, -by)


def neighbour_rows(_request: Request, answer: Answer, _rng: Random, context: FaultContext) -> Answer:
    return answer if context.result is None else with_result(answer, context.result)


def neighbour_rows_relabelled(request: Request, answer: Answer, _rng: Random, context: FaultContext) -> Answer:
    """Return the neighbour's rows with the requested block number."""
    if context.result is None or context.other is None:
        return answer
    result = _relabelled(context.result, first_block(request) - first_block(context.other))
    # an answer without a block number cannot be relabelled: that is the fault neighbour_rows
    return answer if result == context.result else with_result(answer, result)


def stale_fork(request: Request, answer: Answer, _rng: Random, context: FaultContext) -> Answer:
    """Return the fork's own answer, or an answer of a simulated fork: other block hashes, and no first transaction.

    All answers about one block are consistent: indices, and gas if it is known, close the gap of the removed
    transaction.
    """
    if context.said is not None:
        return answer if context.result is None else with_result(answer, context.result)
    make_up = _MADE_UP.get(request["method"])
    return answer if make_up is None or not answer.get("result") else with_result(answer, make_up(answer["result"]))


def forked(block_hash: str) -> str:
    """Return the hash of a block on the simulated fork."""
    return "0x" + hashlib.blake2b(f"stale fork of {block_hash}".encode(), digest_size=32).hexdigest()


def _relabelled(value: Any, by: int) -> Any:
    if isinstance(value, list):
        return [_relabelled(each, by) for each in value]
    if not isinstance(value, dict):
        return value
    labels = {key: value[key] for key in ("blockNumber", "number") if value.get(key) is not None}
    moved_labels = {key: at + by if isinstance(at, int) else hex(int(at, 16) + by) for key, at in labels.items()}
    return {key: _relabelled(below, by) for key, below in value.items()} | moved_labels


def _forked_block(block: dict[str, Any]) -> dict[str, Any]:
    rows = [_on_fork(row) if isinstance(row, dict) else row for row in block["transactions"][1:]]
    return {**block, "hash": forked(block["hash"]), "transactions": rows}


def _forked_receipts(receipts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first, *rest = receipts
    gas, logs = int(first["gasUsed"], 16), len(first["logs"])
    return [
        {
            **_on_fork(receipt),
            "cumulativeGasUsed": _less(receipt["cumulativeGasUsed"], gas),
            "logs": [_on_fork(log, logs) for log in receipt["logs"]],
        }
        for receipt in rest
    ]


def _forked_logs(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    gone = Counter(log["blockHash"] for log in logs if _is_first(log))
    return [_on_fork(log, gone[log["blockHash"]]) for log in logs if not _is_first(log)]


def _on_fork(row: dict[str, Any], logs_before: int = 0) -> dict[str, Any]:
    moved_row = {
        **row,
        "blockHash": forked(row["blockHash"]),
        "transactionIndex": _less(row["transactionIndex"], 1),
    }
    return moved_row | ({"logIndex": _less(row["logIndex"], logs_before)} if "logIndex" in row else {})


def _is_first(log: dict[str, Any]) -> bool:
    return int(log["transactionIndex"], 16) == 0


def _less(quantity: str, by: int) -> str:
    return hex(int(quantity, 16) - by)


_MADE_UP: dict[str, Callable[[Any], Any]] = {
    "eth_getBlockByHash": _forked_block,
    "eth_getBlockByNumber": _forked_block,
    "eth_getBlockReceipts": _forked_receipts,
    "eth_getLogs": _forked_logs,
}
