"""JSON-RPC over HTTP for a devchain: each block's answers are encoded one time and kept as bytes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from trace_dagster.devchain.chain import DevBlock, DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.devchain.encode import block_json, receipts_json, traces_json, transaction_json

MAX_LOG_BLOCKS = 1000
MAX_BATCH = 1000
MAX_BODY_BYTES = 8 * 1024 * 1024
_CACHED_BLOCKS = 20_000

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class DevRpcError(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class DevNodeMethods:
    """The node's methods; each returns encoded JSON."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain
        self._block = lru_cache(_CACHED_BLOCKS)(lambda n, full: _dump(block_json(chain.blocks[n], full=full)))
        self._receipts = lru_cache(_CACHED_BLOCKS)(lambda n: _dump(receipts_json(chain.blocks[n])))
        self._traces = lru_cache(_CACHED_BLOCKS)(lambda n: _dump(traces_json(chain.blocks[n])))
        self._logs = lru_cache(_CACHED_BLOCKS)(_block_logs(chain))
        self._table: dict[str, Callable[[list[Any]], bytes]] = {
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

    def answer(self, request: Any) -> bytes:
        """Return the encoded answer to one request object."""
        identity = b"null"
        try:
            if not isinstance(request, dict):
                raise DevRpcError(-32600, "Invalid request")
            identity = _dump(_identity(request.get("id")))
            method = self._table.get(str(request.get("method")))
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

    def _number(self, tag: Any) -> int | None:
        """Return a block number, or None if the chain does not have the block."""
        named = {"latest": self._chain.head, "pending": self._chain.head, "safe": self._chain.finalized}
        named |= {"finalized": self._chain.finalized, "earliest": 0}
        if tag in named:
            return named[tag]
        number = _quantity(tag)
        return number if number <= self._chain.head else None

    def _block_by_number(self, parameters: list[Any]) -> bytes:
        number = self._number(parameters[0])
        return b"null" if number is None else self._block(number, bool(parameters[1]) if len(parameters) > 1 else False)

    def _block_by_hash(self, parameters: list[Any]) -> bytes:
        number = self._chain.numbers.get(_bytes32(parameters[0]))
        return b"null" if number is None else self._block(number, bool(parameters[1]) if len(parameters) > 1 else False)

    def _block_receipts(self, parameters: list[Any]) -> bytes:
        number = self._number(parameters[0])
        return b"null" if number is None else self._receipts(number)

    def _trace_block(self, parameters: list[Any]) -> bytes:
        tracer = (parameters[1] if len(parameters) > 1 else {}).get("tracer")
        if tracer != "callTracer":
            raise DevRpcError(-32602, "only callTracer is supported")
        number = self._number(parameters[0])
        if number is None:
            raise DevRpcError(-32602, "Block requested not found")
        return self._traces(number)

    def _transaction(self, parameters: list[Any]) -> bytes:
        found = self._chain.locations.get(_bytes32(parameters[0]))
        return b"null" if found is None else _dump(transaction_json(self._chain.blocks[found[0]], found[1]))

    def _receipt(self, parameters: list[Any]) -> bytes:
        found = self._chain.locations.get(_bytes32(parameters[0]))
        return b"null" if found is None else _dump(receipts_json(self._chain.blocks[found[0]])[found[1]])

    def _get_logs(self, parameters: list[Any]) -> bytes:
        query = parameters[0]
        if "blockHash" in query:
            only = self._chain.numbers.get(_bytes32(query["blockHash"]))
            first = last = only
        else:
            first, last = (
                self._number(query.get("fromBlock", "latest")),
                self._number(query.get("toBlock", "latest")),
            )
        if first is None or last is None:
            raise DevRpcError(-32602, "Block requested not found")
        if first > last:
            raise DevRpcError(-32602, "invalid block range")
        if last - first > MAX_LOG_BLOCKS:
            raise DevRpcError(-32602, "block range too large")
        wanted = _LogFilter(query)
        found = [encoded for n in range(first, last + 1) for log, encoded in self._logs(n) if wanted.matches(log)]
        return b"[" + b",".join(found) + b"]"


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


def application(chain: DevChain) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application: every POST is JSON-RPC, GET is the health check."""
    methods = DevNodeMethods(chain)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = await _body(receive) if scope["method"] == "POST" else None
        answer = b'{"status":"ok"}' if body is None else _reply(methods, body)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


async def grow(chain: DevChain, interval_seconds: float) -> None:
    """Mine a block every ``interval_seconds``, without end."""
    while True:
        await asyncio.sleep(interval_seconds)
        chain.mine()


def _reply(methods: DevNodeMethods, body: bytes) -> bytes:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}'
    if not isinstance(request, list):
        return methods.answer(request)
    if not 0 < len(request) <= MAX_BATCH:
        return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid batch size"}}'
    return b"[" + b",".join(methods.answer(item) for item in request) + b"]"


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


def _block_logs(chain: DevChain) -> Callable[[int], list[tuple[dict[str, Any], bytes]]]:
    def logs(number: int) -> list[tuple[dict[str, Any], bytes]]:
        block: DevBlock = chain.blocks[number]
        return [(log, _dump(log)) for receipt in receipts_json(block) for log in receipt["logs"]]

    return logs


def _alternatives(value: Any) -> set[str] | None:
    if value is None or value == []:
        return None
    return {str(item).lower() for item in (value if isinstance(value, list) else [value])}


def _identity(value: Any) -> Any:
    """Return a request's id: a string or a finite number; other values are not valid in JSON-RPC."""
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DevRpcError(-32600, "Invalid request")


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
