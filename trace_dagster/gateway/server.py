"""A small HTTP/1.1 server: each connection carries one request at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import NamedTuple, cast

import httptools

from trace_dagster.gateway.byte_budget import Reservation

MAX_BODY_BYTES = 8 * 1024 * 1024
BACKLOG = 2048
READ_SECONDS = 60.0
"""Longest time in which a caller has to read a response."""


class HttpRequest(NamedTuple):
    """One HTTP request."""

    verb: bytes
    target: bytes
    body: bytes


class HttpResponse(NamedTuple):
    """One HTTP response."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    reservations: Sequence[Reservation] = ()
    """The bytes that it takes in the gateway's budget until the caller has read it."""
    stream: AsyncGenerator[bytes] | None = None
    """The body instead of ``body``, as long as the caller is connected."""


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class ClientConnection(asyncio.Protocol):
    """One connection of a caller. When the caller disconnects, its request is cancelled."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._body = bytearray()
        self._waiting: deque[tuple[HttpRequest, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_read = asyncio.Event()
        self._is_read.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses of asyncio's

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # includes what our own callbacks raise
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def on_message_begin(self) -> None:
        self._target = b""
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            self._abort()

    def on_message_complete(self) -> None:
        request = HttpRequest(self._parser.get_method(), self._target, bytes(self._body))
        self._waiting.append((request, self._parser.should_keep_alive()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        while self._waiting and self._transport is not None:
            request, keeps_open = self._waiting.popleft()
            answer = await self._handler(request)
            if self._transport is None:
                return
            if answer.stream is not None:
                await self._pass_on(answer, answer.stream)
                return
            self._transport.write(_encoded(answer, keeps_open=keeps_open))
            await self._until_read()
            del answer
            if not keeps_open:
                self._transport.close()
                return
        self._task = None

    async def _pass_on(self, answer: HttpResponse, stream: AsyncGenerator[bytes]) -> None:
        """Write a stream until the caller disconnects, or the stream ends and with it the connection."""
        async with aclosing(stream):
            if self._transport is not None:
                self._transport.write(_encoded(answer, keeps_open=False))
            async for part in stream:
                if self._transport is None:
                    return
                self._transport.write(part)
                await self._until_read()
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        self._is_read.clear()

    def resume_writing(self) -> None:
        self._is_read.set()

    async def _until_read(self) -> None:
        """Wait until most of the response is sent. Disconnect a caller that does not read it in time."""
        if self._is_read.is_set():
            return
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._is_read.wait()
        except TimeoutError:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _encoded(answer: HttpResponse, *, keeps_open: bool) -> bytes:
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b%b\r\n%b" % (
        answer.status,
        HTTPStatus(answer.status).phrase.encode(),
        answer.content_type,
        b"" if answer.stream is not None else b"content-length: %d\r\n" % len(answer.body),
        b"" if keeps_open else b"connection: close\r\n",
        answer.body,
    )
