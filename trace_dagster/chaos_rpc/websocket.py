"""A client's WebSocket at the proxy: subscriptions go to the node's WebSocket, calls are answered as over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.server import ServerProtocol

from trace_dagster.chaos_rpc.state import ChaosRpc
from trace_dagster.chaos_rpc.transport import NodeReply
from trace_dagster.chaos_rpc.wire import READ_AHEAD_BYTES, HttpHead

REMEMBERED_HEADS = 1000
_SUBSCRIPTION_METHODS = frozenset({"eth_subscribe", "eth_unsubscribe"})

Reply = Callable[[bytes], Awaitable[NodeReply | None]]


def asks_for_websocket(head: HttpHead) -> bool:
    """Return whether a request wants to become a WebSocket."""
    return head.headers.get("upgrade", "").lower() == "websocket"


class ProxiedWebSocket:
    """One client's WebSocket, and the one to the node that its subscriptions use."""

    def __init__(
        self, state: ChaosRpc, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply
    ) -> None:
        self._state = state
        self._reader = reader
        self._writer = writer
        self._reply = reply
        self._protocol = ServerProtocol()
        self._parts: list[bytes] = []
        self._seen: deque[Any] = deque(maxlen=REMEMBERED_HEADS)

    async def serve(self, head: HttpHead) -> None:
        """Accept the client's handshake, and serve until one side closes. Raises OSError if the node refuses."""
        url = self._state.upstream_url
        if url is None:
            raise ConnectionRefusedError("there is no node yet")
        try:
            async with connect(url.replace("http", "ws", 1), proxy=None) as node:
                self._accept(head)
                notifying = asyncio.create_task(self._pass_on(node))
                try:
                    await self._serve(node)
                finally:
                    notifying.cancel()
        except WebSocketException as error:
            raise ConnectionResetError("the node closed the WebSocket") from error

    def _accept(self, head: HttpHead) -> None:
        lines = [head.start, *(f"{name}: {value}" for name, value in head.headers.items())]
        self._protocol.receive_data("\r\n".join([*lines, "", ""]).encode("latin-1"))
        (request,) = self._protocol.events_received()
        if isinstance(request, HandshakeRequest):
            self._protocol.send_response(self._protocol.accept(request))
        self._flush()

    async def _serve(self, node: ClientConnection) -> None:
        while data := await self._reader.read(READ_AHEAD_BYTES):
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and (message := self._message(event)) is not None:
                    await self._answer(node, message)
            self._flush()
            if self._protocol.close_expected():
                return

    def _message(self, frame: Frame) -> bytes | None:
        """Return a message when its last frame has come."""
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return None
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return None
        message, self._parts = b"".join(self._parts), []
        return message

    async def _answer(self, node: ClientConnection, message: bytes) -> None:
        if _methods(message) & _SUBSCRIPTION_METHODS:
            await node.send(message.decode())
            return
        reply = await self._reply(message)
        if reply is None:
            self._writer.transport.abort()
        else:
            self._send(reply.body)

    async def _pass_on(self, node: ClientConnection) -> None:
        """Pass the node's messages on: answers unchanged, notifications as the head scenario says."""
        with suppress(OSError, WebSocketException):
            async for text in node:
                message = json.loads(text)
                for each in self._announced(message) if "params" in message else [message]:
                    self._send(json.dumps(each, separators=(",", ":")).encode())
        self._writer.close()

    def _announced(self, notification: Any) -> list[Any]:
        self._seen.append(notification)
        scenario = self._state.head_scenario
        if scenario is None:
            return [notification]
        told = scenario.announced(self._seen, self._state.head_blocks)
        self._state.injected[scenario.name] += told != [notification]
        return told

    def _send(self, message: bytes) -> None:
        self._protocol.send_text(message)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._writer.write(data)


def _methods(message: bytes) -> frozenset[str]:
    """Return the methods of a message's requests."""
    try:
        asked = json.loads(message)
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(str(each.get("method")) for each in (asked if isinstance(asked, list) else [asked]) if each)
