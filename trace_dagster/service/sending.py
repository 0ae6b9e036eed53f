"""Sends answers to clients: in pieces, each of which the client must take in time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping

from starlette.types import Send

from trace_dagster.errors import Cancelled, TooLate

TAKE_SECONDS = 30.0
"""A client that takes nothing for so long loses its answer."""
_PIECE_BYTES = 256 << 10
"""The server holds at most this and one buffer of the transport for each client."""


class AnswerSender:
    """Sends one answer. Each method raises Cancelled if the query was, or if the client takes nothing for too long, and
    TooLate after ``until``.
    """

    def __init__(self, send: Send, require_wanted: Callable[[], None] = lambda: None) -> None:
        self._send = send
        self._require_wanted = require_wanted
        self.is_started = False
        """Whether the status was sent: a later error can only break the transfer."""
        self.is_whole = False
        """Whether all was sent: no error can change the answer any more."""
        self.sent_bytes = 0
        """Bytes of the body that were handed to the connection."""
        self.until = math.inf
        """Time of the event loop at which the answer must have been taken: a client that takes a little now and then
        must not hold a place for hours.
        """

    async def whole(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send an answer whose size is known."""
        await self.start({**headers, "Content-Length": str(len(body))})
        await self.pieces(body)
        await self.end()

    async def start(self, headers: Mapping[str, str]) -> None:
        """Send status 200 and the headers."""
        self._require_wanted()
        self.is_started = True
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._taken({"type": "http.response.start", "status": 200, "headers": raw})

    async def pieces(self, body: bytes) -> None:
        """Send a part of the body."""
        for piece in _cut(body):
            self._require_wanted()
            await self._taken({"type": "http.response.body", "body": piece, "more_body": True})
            self.sent_bytes += len(piece)

    async def end(self) -> None:
        """Say that the answer is whole."""
        self._require_wanted()
        self.is_whole = True
        await self._taken({"type": "http.response.body", "body": b"", "more_body": False})

    async def _taken(self, message: dict[str, object]) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout_at(min(clock() + TAKE_SECONDS, self.until)):
                await self._send(message)
        except TimeoutError:
            if clock() >= self.until:
                raise TooLate("the client did not take the answer before the query's deadline") from None
            raise Cancelled(f"the client took nothing for {TAKE_SECONDS:.0f} s") from None


def _cut(body: bytes) -> Iterator[memoryview | bytes]:
    if len(body) <= _PIECE_BYTES:
        yield body
        return
    whole = memoryview(body)
    for start in range(0, len(body), _PIECE_BYTES):
        yield whole[start : start + _PIECE_BYTES]
