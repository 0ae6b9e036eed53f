"""JSON-RPC over HTTP and WebSocket for a devchain: each block's answers are encoded one time and kept as bytes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.devchain.encode import block_json, receipts_json, traces_json, transaction_json
from trace_dagster.devchain.websocket import Receive, Send, WebSocketSession, reply

MAX_LOG_BLOCKS = 1000
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_MINED = 10_000
_CACHED_BLOCKS = 20_000
_HASH_DIGITS = 66

Scope = dict[str, Any]
Method = Callable[[list[Any]], bytes]


class DevRpcError(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class DevNodeMethods:
    """The node's methods; each returns encoded JSON. ``allow_reorgs`` adds ``dev_mine`` and ``dev_reorg``."""

    def __init__(self, chain: DevChain, *, allow_reorgs: bool = False) -> None:
        self._chain = chain
        self._block = lru_cache(_CACHED_BLOCKS)(lambda block, full: _dump(block_json(block, full=full)))
        self._receipts = lru_cache(_CACHED_BLOCKS)(lambda block: _dump(receipts_json(block)))
        self._traces = lru_cache(_CACHED_BLOCKS)(lambda block: _dump(traces_json(block)))
        self._logs = lru_cache(_CACHED_BLOCKS)(_logs_of)
        self._table: dict[str, Method] = {
            "web3_clientVersion": lambda _: b'"trace-devchain/1"',
            "net_version": lambda _: f'"{CHAIN_ID}"'.encode(),
            "eth_chainId": lambda _: f'"{hex(CHAIN_ID)}"'.encode(),
            "eth_blockNumber": lambda _: f'"{hex(chain.head)}"'.encode(),
            "eth_syncing": lambda _: b"false",
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._get_logs,
            "debug_traceBlockByNumber": self._trace_block,
        }
        if allow_reorgs:
            self._table |= {"dev_mine": self._mine, "dev_reorg": self._reorg}

    def answer(self, request: Any, more: Mapping[str, Method] = MappingProxyType({})) -> bytes:
        """Return the encoded answer to one request object. ``more`` has the methods of its connection."""
        identity = b"null"
        try:
            if not isinstance(request, dict):
                raise DevRpcError(-32600, "Invalid request")
            identity = _dump(_identity(request.get("id")))
            name = str(request.get("method"))
            method = self._table.get(name) or more.get(name)
            if method is None:
                raise DevRpcError(-32601, "Method not supported")
            parameters = request.get("params") or []
            if not isinstance(parameters, list):
                raise DevRpcError(-32602, "Invalid params")
            return b'{"jsonrpc":"2.0","id":' + identity + b',"result":' + method(parameters) + b"}"
        except DevRpcError as error:
            body = {"code": error.code, "message": str(error)}
        except (ValueError, TypeError, IndexError, KeyError, AttributeError):
            body = {"code": -32602, "message": "Invalid params"}
        return b'{"jsonrpc":"2.0","id":' + identity + b',"error":' + _dump(body) + b"}"

    def _found(self, tag: Any) -> DevBlock | None:
        """Return a block by number, tag or hash, or None if the chain does not have it."""
        if isinstance(tag, dict):
            tag = tag.get("blockHash") or tag.get("blockNumber")
        if isinstance(tag, str) and len(tag) == _HASH_DIGITS:
            return self._chain.by_hash.get(_bytes32(tag))
        blocks = self._chain.blocks
        named = {"latest": len(blocks) - 1, "pending": len(blocks) - 1, "earliest": 0}
        named |= {"safe": self._chain.safe, "finalized": self._chain.finalized}
        number = named[tag] if tag in named else _quantity(tag)
        return blocks[number] if number < len(blocks) else None

    def _block_by_number(self, parameters: list[Any]) -> bytes:
        return self._encoded(self._found(parameters[0]), parameters)

    def _block_by_hash(self, parameters: list[Any]) -> bytes:
        return self._encoded(self._chain.by_hash.get(_bytes32(parameters[0])), parameters)

    def _encoded(self, block: DevBlock | None, parameters: list[Any]) -> bytes:
        full = bool(parameters[1]) if len(parameters) > 1 else False
        return b"null" if block is None else self._block(block, full)

    def _block_receipts(self, parameters: list[Any]) -> bytes:
        block = self._found(parameters[0])
        return b"null" if block is None else self._receipts(block)

    def _trace_block(self, parameters: list[Any]) -> bytes:
        tracer = (parameters[1] if len(parameters) > 1 else {}).get("tracer")
        if tracer != "callTracer":
            raise DevRpcError(-32602, "only callTracer is supported")
        block = self._found(parameters[0])
        if block is None:
            raise DevRpcError(-32602, "Block requested not found")
        return self._traces(block)

    def _transaction(self, parameters: list[Any]) -> bytes:
        found = self._chain.locations.get(_bytes32(parameters[0]))
        return b"null" if found is None else _dump(transaction_json(*found))

    def _receipt(self, parameters: list[Any]) -> bytes:
        found = self._chain.locations.get(_bytes32(parameters[0]))
        return b"null" if found is None else _dump(receipts_json(found[0])[found[1]])

    def _get_logs(self, parameters: list[Any]) -> bytes:
        query = parameters[0]
        wanted = _LogFilter(query)
        found = [encoded for block in self._queried(query) for log, encoded in self._logs(block) if wanted.matches(log)]
        return b"[" + b",".join(found) + b"]"

    def _queried(self, query: dict[str, Any]) -> Sequence[DevBlock]:
        """Return the blocks that a query for logs names."""
        if "blockHash" in query:
            first = last = self._chain.by_hash.get(_bytes32(query["blockHash"]))
        else:
            first, last = self._found(query.get("fromBlock", "latest")), self._found(query.get("toBlock", "latest"))
        if first is None or last is None:
            raise DevRpcError(-32602, "Block requested not found")
        if first.number > last.number:
            raise DevRpcError(-32602, "invalid block range")
        if last.number - first.number > MAX_LOG_BLOCKS:
            raise DevRpcError(-32602, "block range too large")
        return [first] if first is last else self._chain.blocks[first.number : last.number + 1]

    def _mine(self, parameters: list[Any]) -> bytes:
        """Mine blocks (1 by default), and return the new head's hash."""
        for _ in range(_count(parameters[0]) if parameters else 1):
            self._chain.mine()
        return self._head_hash()

    def _reorg(self, parameters: list[Any]) -> bytes:
        """Replace the last blocks by others, and return the new head's hash."""
        depth, blocks = map(_count, parameters)
        self._chain.reorg(depth, blocks)
        return self._head_hash()

    def _head_hash(self) -> bytes:
        return b'"0x' + self._chain.blocks[-1].hash.hex().encode() + b'"'


class _LogFilter:
    def __init__(self, query: dict[str, Any]) -> None:
        address = query.get("address")
        self._addresses = _alternatives(address)
        self._topics = [_alternatives(topic) for topic in query.get("topics") or []]

    def matches(self, log: dict[str, Any]) -> bool:
        if self._addresses is not None and log["address"] not in self._addresses:
            return False
        if len(self._topics) > len(log["topics"]):
            return False
        return all(
            wanted is None or topic in wanted for wanted, topic in zip(self._topics, log["topics"], strict=False)
        )


def application(chain: DevChain, *, allow_reorgs: bool = False) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application: POST and WebSocket messages are JSON-RPC, GET is the health check."""
    methods = DevNodeMethods(chain, allow_reorgs=allow_reorgs)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await WebSocketSession(chain, methods.answer, send).serve(receive)
            return
        body = await _body(receive) if scope["method"] == "POST" else None
        answer = b'{"status":"ok"}' if body is None else reply(methods.answer, body)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


async def grow(chain: DevChain, interval_seconds: float) -> None:
    """Mine a block every ``interval_seconds``, without end; blocks that are late are not made up for."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + interval_seconds, loop.time())
        await asyncio.sleep(due - loop.time())
        chain.mine()


async def _body(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False) and size <= MAX_BODY_BYTES
    return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _logs_of(block: DevBlock) -> list[tuple[dict[str, Any], bytes]]:
    return [(log, _dump(log)) for receipt in receipts_json(block) for log in receipt["logs"]]


def _alternatives(value: Any) -> set[str] | None:
    if value is None or value == []:
        return None
    return {str(item).lower() for item in (value if isinstance(value, list) else [value])}


def _identity(value: Any) -> Any:
    """Return a request's id: a string or a finite number; other values are not valid in JSON-RPC."""
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DevRpcError(-32600, "Invalid request")


def _count(value: Any) -> int:
    count = value if isinstance(value, int) else _quantity(value)
    if not 0 <= count <= MAX_MINED:
        raise DevRpcError(-32602, f"a number of blocks lies between 0 and {MAX_MINED}")
    return count


def _quantity(value: Any) -> int:
    if not isinstance(value, str) or not value.startswith("0x"):
        raise DevRpcError(-32602, "Invalid params")
    return int(value, 16)


def _bytes32(value: Any) -> bytes:
    data = bytes.fromhex(str(value).removeprefix("0x"))
    if len(data) != 32:
        raise DevRpcError(-32602, "Invalid params")
    return data


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
