"""Answers JSON-RPC requests from files of real blocks, as a node would.

A folder holds one ``<number>.json.gz`` per block with ``block`` (eth_getBlockByNumber with full transactions),
``receipts`` and ``call_traces`` (callTracer results), one per transaction and in order. The folder is a chain with
gaps: the node answers for other blocks as if it had pruned them. No transport here; see ``replay``.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAIN_ID = 1
_TAGS = ("latest", "safe", "finalized", "pending")


class RpcError(Exception):
    """The ``error`` member of a node's answer."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class RecordedBlock:
    """One block as its node returned it. Lists have one entry per transaction, in order."""

    number: int
    block: dict[str, Any]
    receipts: list[dict[str, Any]]
    call_traces: list[dict[str, Any]]

    def logs(self) -> list[dict[str, Any]]:
        return [log for receipt in self.receipts for log in receipt["logs"]]

    def traces(self) -> list[dict[str, Any]]:
        hashes = (transaction["hash"] for transaction in self.block["transactions"])
        return [{"txHash": tx_hash, "result": trace} for tx_hash, trace in zip(hashes, self.call_traces, strict=True)]


def read_block(path: Path) -> RecordedBlock:
    """Read a block from a file. Raises ValueError if the content does not match the file's name."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    recorded = RecordedBlock(
        int(content["block"]["number"], 16), content["block"], content["receipts"], content["call_traces"]
    )
    if path.name != f"{recorded.number}.json.gz":
        raise ValueError(f"{path.name} holds block {recorded.number}")
    if not len(recorded.block["transactions"]) == len(recorded.receipts) == len(recorded.call_traces):
        raise ValueError(f"{path.name} lacks receipts or traces for some transactions")
    return recorded


class RecordedChain:
    """All blocks of a folder, and the RPC methods that read them."""

    def __init__(self, folder: Path) -> None:
        self.blocks = {recorded.number: recorded for recorded in map(read_block, sorted(folder.glob("*.json.gz")))}
        if not self.blocks:
            raise ValueError(f"no <number>.json.gz file in {folder}")
        self.head = max(self.blocks)
        self._receipts = {
            receipt["transactionHash"]: receipt for recorded in self.blocks.values() for receipt in recorded.receipts
        }
        self._methods: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "recorded-blocks/1",
            "net_version": lambda: str(CHAIN_ID),
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_blockNumber": lambda: hex(self.head),
            "eth_syncing": lambda: False,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getTransactionReceipt": self._receipts.get,
            "eth_getLogs": self._logs,
            "debug_traceBlockByNumber": self._trace_block,
        }

    def call(self, method: str, params: list[Any]) -> Any:
        """Return the ``result`` of one request. Raises RpcError if a node would answer with an error."""
        if method not in self._methods:
            raise RpcError(-32601, f"the method {method} does not exist/is not available")
        try:
            return self._methods[method](*params)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise RpcError(-32602, f"invalid argument: {error}") from error

    def _number(self, tag: str) -> int:
        if tag in _TAGS:
            return self.head
        return 0 if tag == "earliest" else int(tag, 16)

    def _block_by_number(self, tag: str, full: bool = False) -> dict[str, Any] | None:
        recorded = self.blocks.get(self._number(tag))
        if recorded is None:
            return None
        if full:
            return recorded.block
        hashes = [transaction["hash"] for transaction in recorded.block["transactions"]]
        return {**recorded.block, "transactions": hashes}

    def _block_receipts(self, tag: str) -> list[dict[str, Any]] | None:
        recorded = self.blocks.get(self._number(tag))
        return recorded.receipts if recorded else None

    def _trace_block(self, tag: str, options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        tracer = (options or {}).get("tracer")
        if tracer != "callTracer":
            raise RpcError(-32000, f"tracer not found: {tracer}")
        number = self._number(tag)
        if number not in self.blocks:
            raise RpcError(-32000, f"block #{number} not found")
        return self.blocks[number].traces()

    def _logs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        return [log for recorded in self._log_blocks(wanted) for log in recorded.logs() if log_matches(log, wanted)]

    def _log_blocks(self, wanted: dict[str, Any]) -> Iterable[RecordedBlock]:
        if "blockHash" in wanted:
            found = [held for held in self.blocks.values() if held.block["hash"] == wanted["blockHash"]]
            if not found:
                raise RpcError(-32000, "unknown block")
            return found
        first, last = (self._number(wanted.get(key, "latest")) for key in ("fromBlock", "toBlock"))
        if first > last:
            raise RpcError(-32602, "invalid block range params")
        if last > self.head:
            raise RpcError(-32602, "block range extends beyond current head block")
        held = [self.blocks[number] for number in sorted(self.blocks) if first <= number <= last]
        if len(held) != last - first + 1:
            raise RpcError(4444, "pruned history unavailable")
        return held


def log_matches(log: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether a log passes an eth_getLogs filter's ``address`` and ``topics``."""
    if not _one_of(log["address"], wanted.get("address")):
        return False
    filters = wanted.get("topics") or []
    if len(filters) > len(log["topics"]):
        return False
    return all(_one_of(topic, choice) for topic, choice in zip(log["topics"], filters, strict=False))


def _one_of(value: str, choice: str | list[str] | None) -> bool:
    if choice is None or choice == []:
        return True
    choices = [choice] if isinstance(choice, str) else choice
    return value.lower() in (each.lower() for each in choices)
