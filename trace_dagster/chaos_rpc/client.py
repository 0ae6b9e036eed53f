"""One client connection of the proxy: its requests, one after the other, and their faults."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

from trace_dagster.chaos_rpc import wire
from trace_dagster.chaos_rpc.head_node import HeadNode
from trace_dagster.chaos_rpc.proxied_node import ProxiedNode
from trace_dagster.chaos_rpc.shapes import Answer, FaultContext, Request
from trace_dagster.chaos_rpc.state import ChaosRpc, InjectedFault
from trace_dagster.chaos_rpc.transport import NodeReply
from trace_dagster.chaos_rpc.websocket import ProxiedWebSocket, asks_for_websocket

_LOOK_SECONDS = 0.5
"""Seconds between checks of a stalled answer whether the client has disconnected."""


class ChaosClient:
    """Serves one client's connection. Forwards its requests over one connection to the node and one to the fork."""

    def __init__(self, state: ChaosRpc, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._state = state
        self._reader = reader
        self._writer = writer
        self._nodes: dict[bool, ProxiedNode] = {}
        self._head = HeadNode(state, self._node)

    async def serve(self) -> None:
        """Serve the connection until one side closes it."""
        try:
            while await self._serve_one():
                pass
        except wire.TooLarge:
            self._writer.write(wire.answer(413, b"too large", "text/plain", keep_open=False))
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # the client disconnected, or does not speak HTTP
        finally:
            self._close()

    def _close(self) -> None:
        for node in self._nodes.values():
            node.close()
        self._writer.close()

    async def _serve_one(self) -> bool:
        """Answer one HTTP request; return whether another may follow."""
        head = await wire.read_head(self._reader)
        if head is None:
            return False
        if asks_for_websocket(head):
            await ProxiedWebSocket(self._state, self._reader, self._writer, self._reply).serve(head)
            return False
        if head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await wire.read_body(self._reader, head)
        reply = await self._reply(body) if head.verb == "POST" else NodeReply(405, b"POST JSON-RPC here", "text/plain")
        if reply is None:
            _reset(self._writer)
            return False
        keep_open = head.keeps_open
        self._writer.write(wire.answer(reply.status, reply.body, reply.content_type, keep_open=keep_open))
        await self._writer.drain()
        return keep_open

    async def _reply(self, body: bytes) -> NodeReply | None:
        """Return the reply to a request body, or None to reset the connection."""
        asked = _parsed(body)
        requests = [each for each in (asked if isinstance(asked, list) else [asked]) if isinstance(each, dict)]
        drawn = [(request, draw) for request in requests if (draw := self._state.fault_for(request))]
        for _, draw in drawn:
            if draw.fault.kind == "transport" and draw.fault.change is None:
                return await self._transported(draw, asked, body)
        honest = await self._head.ask(body)
        if not drawn or honest.status != 200:
            return honest
        try:
            return await self._falsified(honest, drawn)
        except RecursionError:  # a trace is nested deeper than Python's recursion limit
            return honest

    async def _transported(self, draw: InjectedFault, asked: Any, body: bytes) -> NodeReply | None:
        """Return the reply with a fault of the whole HTTP response, which affects every request of a batch."""
        fault, state = draw.fault, self._state
        if fault.name == "reset" or fault.refuse is not None:
            state.injected[fault.name] += 1
            return None if fault.refuse is None else fault.refuse(asked, draw.rng)
        if fault.name in state.held_seconds:
            state.injected[fault.name] += 1
            await self._hold(state.held_seconds[fault.name])
        honest = await self._head.ask(body)
        spoilt = honest if fault.spoil is None or honest.status != 200 else fault.spoil(honest, draw.rng)
        state.injected[fault.name] += spoilt != honest
        return spoilt

    async def _falsified(self, honest: NodeReply, drawn: Sequence[tuple[Request, InjectedFault]]) -> NodeReply:
        """Return the node's reply with the drawn answers replaced; the same bytes if none of them can be changed."""
        said = _parsed(honest.body)
        answers = said if isinstance(said, list) else [said]
        places = {_identity(answer): i for i, answer in enumerate(answers) if isinstance(answer, dict)}
        told: Counter[str] = Counter()
        for request, draw in drawn:
            place = places.get(_identity(request))
            if place is None:
                continue
            false = await self._told(request, answers[place], draw)
            if false != answers[place]:
                answers[place] = false
                told[draw.fault.name] += 1
        if not told:
            return honest
        body = json.dumps(answers if isinstance(said, list) else answers[0], separators=(",", ":"))
        self._state.injected += told
        return NodeReply(200, body.encode(), honest.content_type)

    async def _told(self, request: Request, answer: Answer, draw: InjectedFault) -> Answer:
        return draw.fault.tell(request, answer, draw.rng, await self._context(request, draw))

    async def _context(self, request: Request, draw: InjectedFault) -> FaultContext:
        """Return the answers about another block, or from the fork, that a fault needs."""
        fault = draw.fault
        if fault.question is None or (fault.of_fork and self._state.fork is None):
            return FaultContext()
        other = fault.question(request, draw.rng)
        if other is None:
            return FaultContext()
        reply = await self._node(fault.of_fork).ask(json.dumps(other).encode())
        said = _parsed(reply.body)
        return FaultContext(other, said if isinstance(said, dict) else {})

    def _node(self, of_fork: bool) -> ProxiedNode:
        """Return the connection to the node or to its fork; a new one after the URL was changed."""
        address = self._state.fork if of_fork else self._state.upstream
        node = self._nodes.get(of_fork)
        if node is None or node.address is not address:
            if node is not None:
                node.close()
            node = self._nodes[of_fork] = ProxiedNode(address)
        return node

    async def _hold(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while (left := ends - loop.time()) > 0 and not self._reader.at_eof():
            await asyncio.sleep(min(left, _LOOK_SECONDS))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _identity(message: dict[str, Any]) -> str:
    return json.dumps(message.get("id"))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, so that the client sees a connection reset and not an empty response."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
