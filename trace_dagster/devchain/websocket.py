"""JSON-RPC messages of a devchain over a WebSocket, with subscriptions to new heads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.encode import header_json

MAX_BATCH = 1000

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = Callable[..., bytes]
"""Answers one request object; its second argument has more methods by name."""


def reply(answer: Answer, body: bytes | str, *more: Any) -> bytes:
    """Return the encoded reply to a request or to a batch of them."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}'
    if not isinstance(request, list):
        return answer(request, *more)
    if not 0 < len(request) <= MAX_BATCH:
        return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid batch size"}}'
    return b"[" + b",".join(answer(item, *more) for item in request) + b"]"


class WebSocketSession:
    """One connection: replies and notifications leave it in the order in which they were made."""

    def __init__(self, chain: DevChain, answer: Answer, send: Send) -> None:
        self._chain = chain
        self._answer = answer
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._subscriptions: set[str] = set()
        self._identities = count(1)
        self._methods = {"eth_subscribe": self._subscribe, "eth_unsubscribe": self._unsubscribe}

    async def serve(self, receive: Receive) -> None:
        """Serve until the client disconnects."""
        await receive()
        await self._send({"type": "websocket.accept"})
        writer = asyncio.create_task(self._write())
        self._chain.listeners.append(self._mined)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                asked = message.get("text") or message.get("bytes") or ""
                self._waiting.put_nowait(reply(self._answer, asked, self._methods))
        finally:
            self._chain.listeners.remove(self._mined)
            writer.cancel()

    async def _write(self) -> None:
        with suppress(OSError, RuntimeError):  # the client has disconnected
            while True:
                await self._send({"type": "websocket.send", "text": (await self._waiting.get()).decode()})

    def _mined(self, block: DevBlock) -> None:
        """Pass a new block on; called in the thread that mines."""
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._notify, block)

    def _notify(self, block: DevBlock) -> None:
        for identity in sorted(self._subscriptions):
            event = {"subscription": identity, "result": header_json(block)}
            self._waiting.put_nowait(_dump({"jsonrpc": "2.0", "method": "eth_subscription", "params": event}))

    def _subscribe(self, parameters: list[Any]) -> bytes:
        if parameters[0] != "newHeads":
            raise ValueError("only new heads can be subscribed to")
        identity = hex(next(self._identities))
        self._subscriptions.add(identity)
        return _dump(identity)

    def _unsubscribe(self, parameters: list[Any]) -> bytes:
        known = parameters[0] in self._subscriptions
        self._subscriptions.discard(parameters[0])
        return _dump(known)


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
