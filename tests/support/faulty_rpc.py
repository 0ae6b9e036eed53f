"""An HTTP proxy in front of a JSON-RPC node that answers a seeded share of the requests wrongly.

    with faulty_rpc(seed=1, rate=0.03) as proxy:
        proxy.upstream = ("127.0.0.1", 8545)
        proxy.url, proxy.requests, proxy.faults

Only faults that an engine or a structural check can notice: an error status, a broken connection, no result, no
JSON, a late answer. Lists that are silently too short are none of its business: only proof finds those.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from random import Random
from typing import Any

FAULTS = ("http_500", "http_429", "reset", "null_result", "garbage", "delay")
DELAY_SECONDS = 2.0
_BODY_BYTES = 64 * 1024 * 1024
_REASONS = {200: "OK", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway"}


class FaultyRpc:
    """The proxy's state: where it forwards to, how often it lies, what it has done."""

    def __init__(self, seed: int, rate: float) -> None:
        self.upstream: tuple[str, int] | None = None
        self.rate = rate
        self.port = 0
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self._random = Random(f"faulty-rpc/{seed}")

    @property
    def url(self) -> str:
        """What a pool's variable holds."""
        return f"http://127.0.0.1:{self.port}"

    def draw(self) -> str | None:
        """The next request's fault, or None for an honest answer."""
        self.requests += 1
        if self._random.random() >= self.rate:
            return None
        fault = self._random.choice(FAULTS)
        self.faults[fault] += 1
        return fault

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, kept alive until either side has enough; it has an upstream connection of its own."""
        node: _Upstream | None = None
        try:
            while (body := await _read_message(reader)) is not None:
                fault = self.draw()
                if fault == "reset":
                    _reset(writer)
                    return
                if fault == "delay":
                    await asyncio.sleep(DELAY_SECONDS)
                status, answer = _lie(fault, body)
                if answer is None:
                    node = node or _Upstream(self.upstream)
                    status, answer = await node.ask(body)
                writer.write(_response(status, answer))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            if node is not None:
                node.close()
            writer.close()


class _Upstream:
    """One connection to the node, opened again when it was lost."""

    def __init__(self, address: tuple[str, int] | None) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """The node's answer; 502 when it gives none."""
        for _ in range(2):  # a kept connection may have been closed meanwhile
            try:
                return 200, await self._ask_once(body)
            except (OSError, asyncio.IncompleteReadError):
                self.close()
        return 502, b"the node does not answer"

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask_once(self, body: bytes) -> bytes:
        if self._address is None:
            raise ConnectionRefusedError("there is no node yet")
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=_BODY_BYTES)
        reader, writer = self._streams
        head = f"POST / HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await _read_message(reader)
        if answer is None:
            raise ConnectionResetError("the node closed the connection")
        return answer


@contextmanager
def faulty_rpc(*, seed: int, rate: float) -> Iterator[FaultyRpc]:
    """A running proxy on a free port, in a thread; it is closed at the end of the block."""
    proxy = FaultyRpc(seed, rate)
    # IPPROTO_TCP by name: asyncio turns Nagle's delay off only then
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    proxy.port = listener.getsockname()[1]
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(proxy.serve, sock=listener, backlog=1024, limit=_BODY_BYTES)
        started.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="faulty-rpc", daemon=True)
    with closing(listener):
        thread.start()
        started.wait(10)
        try:
            yield proxy
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)


async def _read_message(reader: asyncio.StreamReader) -> bytes | None:
    """The body of the next HTTP message, or None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return await reader.readexactly(int(value))
    return b""


def _lie(fault: str | None, body: bytes) -> tuple[int, bytes | None]:
    """(status, body) of a wrong answer; no body for one that the node shall give."""
    match fault:
        case "http_500":
            return 500, b"internal server error"
        case "http_429":
            return 429, b"rate limit exceeded"
        case "garbage":
            return 200, b'{"jsonrpc":"2.0","id":1,"resu\xff<html>'
        case "null_result":
            return 200, json.dumps(_nothing(json.loads(body))).encode()
    return 200, None


def _nothing(request: Any) -> Any:
    if isinstance(request, list):
        return [_nothing(each) for each in request]
    return {"jsonrpc": "2.0", "id": request.get("id"), "result": None}


def _response(status: int, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN: the client sees a connection reset, not an empty answer."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
