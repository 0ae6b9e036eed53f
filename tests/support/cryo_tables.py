"""Converts a node's answers to the tables of Cryo 0.3.2. Written from Cryo's documents, independently of ``verify``.

The integration tests hold these against the engine's own tables, value by value; ``n_rlp_bytes`` is left null.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from trace_dagster.datasets.catalogue import dataset

Json = dict[str, Any]
NAMES = ("blocks", "transactions", "logs", "erc20_transfers", "erc721_transfers", "geth_calls")
_TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def cryo_table(name: str, block: Json, receipts: list[Json], traces: list[Json], chain_id: int) -> pa.Table:
    """Return all columns of dataset ``name`` for one block. ``traces`` are callTracer results."""
    rows = [{**row, "chain_id": chain_id} for row in _ROWS[name](block, receipts, traces)]
    return pa.Table.from_pylist(rows, schema=dataset(name).engine_schema(tuple(dataset(name).all_columns)))


def _blocks(block: Json, receipts: list[Json], traces: list[Json]) -> Iterator[Json]:
    del receipts, traces
    yield {
        "block_hash": _data(block["hash"]),
        "parent_hash": _data(block["parentHash"]),
        "author": _data(block["miner"]),
        "state_root": _data(block["stateRoot"]),
        "transactions_root": _data(block["transactionsRoot"]),
        "receipts_root": _data(block["receiptsRoot"]),
        "block_number": int(block["number"], 16),
        "gas_used": int(block["gasUsed"], 16),
        "extra_data": _data(block["extraData"]),
        "logs_bloom": _data(block["logsBloom"]),
        "timestamp": int(block["timestamp"], 16),
        **_faces("total_difficulty", _number(block.get("totalDifficulty"))),
        "size": int(block["size"], 16),
        "base_fee_per_gas": _number(block.get("baseFeePerGas")),
    }


def _transactions(block: Json, receipts: list[Json], traces: list[Json]) -> Iterator[Json]:
    del traces
    for index, (each, receipt) in enumerate(zip(block["transactions"], receipts, strict=True)):
        data = _data(each["input"])
        yield {
            "block_number": int(block["number"], 16),
            "block_hash": _data(block["hash"]),
            "timestamp": int(block["timestamp"], 16),
            "transaction_index": index,
            "transaction_hash": _data(each["hash"]),
            "nonce": int(each["nonce"], 16),
            "from_address": _data(each["from"]),
            "to_address": _data(each.get("to")),
            **_faces("value", int(each["value"], 16)),
            "input": data,
            "gas_limit": int(each["gas"], 16),
            "gas_used": int(receipt["gasUsed"], 16),
            "gas_price": _number(each.get("gasPrice")),
            "transaction_type": int(each.get("type", "0x0"), 16),
            "max_priority_fee_per_gas": _number(each.get("maxPriorityFeePerGas")),
            "max_fee_per_gas": _number(each.get("maxFeePerGas")),
            "success": None if receipt.get("status") is None else receipt["status"] == "0x1",
            "n_input_bytes": len(data),
            "n_input_zero_bytes": data.count(0),
            "n_input_nonzero_bytes": len(data) - data.count(0),
        }


def _all_logs(block: Json, receipts: list[Json]) -> Iterator[tuple[Json, Json]]:
    log_index = 0
    for index, receipt in enumerate(receipts):
        for log in receipt["logs"]:
            place = {
                "block_number": int(block["number"], 16),
                "block_hash": _data(block["hash"]),
                "transaction_index": index,
                "log_index": log_index,
                "transaction_hash": _data(receipt["transactionHash"]),
            }
            yield place, log
            log_index += 1


def _logs(block: Json, receipts: list[Json], traces: list[Json]) -> Iterator[Json]:
    del traces
    for place, log in _all_logs(block, receipts):
        topics = {f"topic{n}": _data(topic) for n, topic in enumerate(log["topics"])}
        yield {**place, "address": _data(log["address"]), **topics, "data": _data(log["data"])}


def _erc20(block: Json, receipts: list[Json], traces: list[Json]) -> Iterator[Json]:
    del traces
    for place, log in _all_logs(block, receipts):
        if log["topics"][:1] == [_TRANSFER] and len(log["topics"]) == 3 and len(log["data"]) == 66:
            yield {**place, **_parties(log), **_faces("value", int(log["data"], 16))}


def _erc721(block: Json, receipts: list[Json], traces: list[Json]) -> Iterator[Json]:
    del traces
    for place, log in _all_logs(block, receipts):
        if log["topics"][:1] == [_TRANSFER] and len(log["topics"]) == 4 and log["data"] == "0x":
            yield {**place, **_parties(log), **_faces("token_id", int(log["topics"][3], 16))}


def _parties(log: Json) -> Json:
    _, sender, receiver = (_data(topic) for topic in log["topics"][:3])
    return {"erc20": _data(log["address"]), "from_address": sender[12:], "to_address": receiver[12:]}


def _geth_calls(block: Json, receipts: list[Json], traces: list[Json]) -> Iterator[Json]:
    for index, (receipt, trace) in enumerate(zip(receipts, traces, strict=True)):
        for address, frame in _frames(trace, ""):
            yield {
                "typ": frame["type"],
                "from_address": _data(frame["from"]),
                "to_address": _data(frame.get("to")),
                **_faces("value", _number(frame.get("value"))),
                **_faces("gas", int(frame.get("gas", "0x0"), 16)),
                **_faces("gas_used", int(frame.get("gasUsed", "0x0"), 16)),
                "input": _data(frame["input"]),
                "output": _data(frame.get("output")),
                "error": frame.get("error"),
                "block_number": int(block["number"], 16),
                "transaction_hash": _data(receipt["transactionHash"]),
                "transaction_index": index,
                "trace_address": address,
            }


def _frames(frame: Json, address: str) -> Iterator[tuple[str, Json]]:
    yield address, frame
    for index, child in enumerate(frame.get("calls") or []):
        yield from _frames(child, f"{address} {index}".strip())


_ROWS = {
    "blocks": _blocks,
    "transactions": _transactions,
    "logs": _logs,
    "erc20_transfers": _erc20,
    "erc721_transfers": _erc721,
    "geth_calls": _geth_calls,
}


def _faces(base: str, value: int | None) -> Json:
    if value is None:
        return {}
    return {f"{base}_binary": value.to_bytes(32, "big"), f"{base}_string": str(value), f"{base}_f64": float(value)}


def _data(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text[2:])


def _number(text: str | None) -> int | None:
    return None if text is None else int(text, 16)
