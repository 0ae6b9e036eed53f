"""Answers JSON-RPC requests about an imitated chain, in the manner of a node. No transport here; see ``replay``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.imitated.chain import ImitatedBlock, Recipe, build
from tests.support.imitated.hexadecimal import Json, shown
from tests.support.imitated.layer1 import shown_by
from tests.support.recorded_blocks import RpcError, log_matches
from tests.support.replay import ReplayServer, serving_chain


@dataclass(frozen=True)
class Manner:
    """What a node does in its own way."""

    has_finalized: bool = True
    has_block_receipts: bool = True
    has_logs: bool = True
    has_raw_transactions: bool = True
    null_when_empty: bool = False
    """Whether the receipts of a block without transactions are null."""
    client: str = ""
    """The client whose JSON of AuRa's seal this is."""
    leaves_out: tuple[str, ...] = ()
    """Members that transactions lack: ``type`` where it is 0, ``v`` where it is not, and others only of deposits."""
    counts_logs_by_transaction: bool = False
    makes_up_status: bool = False
    """Whether receipts before Byzantium have a status and no root."""
    traces_genesis: bool = False


class ImitatedNode:
    """A node of one imitated chain."""

    def __init__(self, recipe: Recipe, manner: Manner | None = None) -> None:
        self.recipe = recipe
        self.manner = manner or Manner()
        self.blocks = {block.number: block for block in build(recipe)}
        self.head = max(self.blocks)
        self.finalized = self.head - 2
        self._receipts = {each["transactionHash"]: each for block in self.blocks.values() for each in block.receipts}
        self._methods: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "imitated/1",
            "net_version": lambda: str(recipe.chain_id),
            "eth_chainId": lambda: hex(recipe.chain_id),
            "eth_blockNumber": lambda: hex(self.head),
            "eth_syncing": lambda: False,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getTransactionReceipt": lambda digest: self._maybe(self._receipts.get(digest)),
            "debug_traceBlockByNumber": self._trace_block,
        }
        if self.manner.has_block_receipts:
            self._methods["eth_getBlockReceipts"] = self._block_receipts
        if self.manner.has_logs:
            self._methods["eth_getLogs"] = self._logs
        if self.manner.has_raw_transactions:
            self._methods["eth_getRawTransactionByBlockNumberAndIndex"] = self._raw_transaction

    def call(self, method: str, params: list[Any]) -> Any:
        """Return the ``result`` of one request. Raises RpcError if a node would answer with an error."""
        if method not in self._methods:
            raise RpcError(-32601, f"the method {method} does not exist/is not available")
        try:
            return self._methods[method](*params)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise RpcError(-32602, f"invalid argument: {error}") from error

    def _number(self, tag: str) -> int:
        if tag in {"finalized", "safe"}:
            if not self.manner.has_finalized:
                raise RpcError(-39001, "Unknown block")
            return self.finalized
        if tag in {"latest", "pending"}:
            return self.head
        return 0 if tag == "earliest" else int(tag, 16)

    def _held(self, tag: str) -> ImitatedBlock | None:
        return self.blocks.get(self._number(tag))

    def _block_by_number(self, tag: str, full: bool = False) -> Json | None:
        held = self._held(tag)
        if held is None:
            return None
        block = shown_by(self.manner.client, held.block) if self.manner.client else held.block
        rows = [self._transaction(each) if full else each["hash"] for each in block["transactions"]]
        return {**block, "transactions": rows}

    def _transaction(self, each: Json) -> Json:
        """Return a transaction without what this node leaves out."""
        kind = each["type"]
        gone = {name for name in self.manner.leaves_out if _is_left_out(name, kind)}
        return {name: value for name, value in each.items() if name not in gone}

    def _block_receipts(self, tag: str) -> list[Json] | None:
        held = self._held(tag)
        if held is None or (not held.receipts and self.manner.null_when_empty):
            return None
        return [self._maybe(receipt) for receipt in held.receipts]

    def _maybe(self, receipt: Json | None) -> Any:
        """Return a receipt as this node shows it: without members that are null there, or with a made-up status."""
        if receipt is not None and self.manner.counts_logs_by_transaction:
            receipt = {**receipt, "logs": [_counted(log, index) for index, log in enumerate(receipt["logs"])]}
        if receipt is None or "root" not in receipt:
            return receipt
        if not self.manner.makes_up_status:
            return {name: value for name, value in receipt.items() if name != "status"}
        return {name: value for name, value in receipt.items() if name != "root"} | {"status": "0x1"}

    def _raw_transaction(self, tag: str, index: str) -> str | None:
        held = self._held(tag)
        position = int(index, 16)
        return shown(held.raw[position]) if held and position < len(held.raw) else None

    def _trace_block(self, tag: str, options: Json | None = None) -> list[Json]:
        if (options or {}).get("tracer") != "callTracer":
            raise RpcError(-32000, f"tracer not found: {(options or {}).get('tracer')}")
        number = self._number(tag)
        if number == 0 and not self.manner.traces_genesis:
            raise RpcError(-32000, "genesis is not traceable")
        if number not in self.blocks:
            raise RpcError(-32000, f"block #{number} not found")
        held = self.blocks[number]
        pairs = zip(held.block["transactions"], held.frames, strict=True)
        return [{"txHash": each["hash"], "result": frame} for each, frame in pairs if frame is not None]

    def _logs(self, wanted: Json) -> list[Json]:
        receipts = [self._maybe(each) for block in self._log_blocks(wanted) for each in block.receipts]
        return [log for receipt in receipts for log in receipt["logs"] if log_matches(log, wanted)]

    def _log_blocks(self, wanted: Json) -> list[ImitatedBlock]:
        if "blockHash" in wanted:
            return [held for held in self.blocks.values() if held.block["hash"] == wanted["blockHash"]]
        first, last = (self._number(wanted.get(key, "latest")) for key in ("fromBlock", "toBlock"))
        if first > last or last > self.head:
            raise RpcError(-32602, "invalid block range params")
        return [self.blocks[number] for number in range(first, last + 1) if number in self.blocks]


def _is_left_out(name: str, kind: str) -> bool:
    if name == "type":
        return kind == "0x0"
    return kind != "0x0" if name == "v" else kind == "0x7e"


def _counted(log: Json, index: int) -> Json:
    return {**log, "logIndex": hex(index)}


@contextmanager
def imitating(recipe: Recipe, manner: Manner | None = None) -> Iterator[ReplayServer]:
    """Serve a chain until the end of the block."""
    with serving_chain(ImitatedNode(recipe, manner)) as server:
        yield server
