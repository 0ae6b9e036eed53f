"""The lower bound for a node's answers: full blocks and receipts over JSON-RPC, counted in bytes and dropped."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import uvloop

METHODS = ((b"eth_getBlockByNumber", b",true"), (b"eth_getBlockReceipts", b""))
"""Methods with their arguments after the block's number: the data of blocks, transactions, receipts and logs."""

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Fetched:
    """The cost, and the bytes received."""

    seconds: float
    cpu_seconds: float
    answers: int
    bytes: int


def fetch(url: str, blocks: int, connections: int) -> Fetched:
    """Fetch every answer for ``[0, blocks)`` over this many keep-alive connections, one request at a time on each."""
    parts = urlsplit(url)
    requests = _requests(blocks, parts.netloc.encode())
    started, spent = time.perf_counter(), time.process_time()
    found = uvloop.run(_fetch(str(parts.hostname), int(parts.port or 80), requests, connections))
    answers, size = (sum(side) for side in zip(*found, strict=True))
    return Fetched(time.perf_counter() - started, time.process_time() - spent, answers, size)


def _requests(blocks: int, host: bytes) -> Iterator[bytes]:
    for number in range(blocks):
        for method, more in METHODS:
            body = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":["0x%x"%b]}' % (method, number, more)
            head = b"POST / HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\n" % host
            yield head + b"content-length: %d\r\n\r\n" % len(body) + body


async def _fetch(host: str, port: int, requests: Iterator[bytes], connections: int) -> list[tuple[int, int]]:
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: _Connection(requests, loop.create_future()), host, port)
        for _ in range(connections)
    ]
    return [await each.done for _, each in made]


class _Connection(asyncio.Protocol):
    """Sends the next request when a response is complete."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[tuple[int, int]]) -> None:
        self._requests = requests
        self.done = done
        self._head = b""
        self._left = self._answers = self._bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """Treat a missing response as an error."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the node closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Count down to the end of the response."""
        if not self._left:
            self._head += data
            end = self._head.find(_END)
            if end < 0:
                return
            if b" 200 " not in self._head[:16]:
                raise ConnectionError(f"the node answered {self._head[:16]!r}")
            found = _LENGTH.search(self._head)
            assert found is not None
            size = int(found[1])
            self._left = end + len(_END) + size - len(self._head)
            self._bytes, self._head = self._bytes + size, b""
        else:
            self._left -= len(data)
        if not self._left:
            self._answers += 1
            self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        else:
            self.done.set_result((self._answers, self._bytes))
            self._transport.close()
