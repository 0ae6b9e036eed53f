"""HTTP to one endpoint: connections kept open, each answer within a time and a size.

The URL may hold a key: no error text carries any of it.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from functools import cache
from typing import NamedTuple, cast
from urllib.parse import SplitResult, unquote, urlsplit

import httptools

from trace_dagster.rpc.http import CONNECT_SECONDS, MAX_ANSWER_BYTES, WHOLE_SECONDS

_IDLE_SECONDS = 20.0
"""A connection unused for longer may be half closed already."""


class RequestFailed(Exception):
    """No answer; the text says why, without the URL."""

    def __init__(self, reason: str, *, is_silent: bool) -> None:
        super().__init__(reason)
        self.is_silent = is_silent
        """Nothing came at all: asking for less does not help."""


class HttpReply(NamedTuple):
    """One HTTP answer."""

    status: int
    body: bytes
    retry_after: float | None = None
    """Seconds, where the endpoint says so."""


class Connections:
    """Connections to one endpoint, opened as they are needed, the last used first."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if tls else 80)
        self._tls = tls
        self._head = _head(parts)
        self._idle: list[_Connection] = []

    async def post(self, body: bytes) -> HttpReply:
        """The answer to a POST of JSON. Raises RequestFailed."""
        connection = self._taken() or await self._opened()
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                reply = await connection.ask(self._head + b"%d\r\n\r\n" % len(body) + body)
        except TimeoutError:
            raise RequestFailed(f"no whole answer in {WHOLE_SECONDS:.0f} s", is_silent=True) from None
        finally:
            if connection.is_reusable:
                connection.idle_since = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                connection.abort()
        return reply

    def close(self) -> None:
        """End the idle ones."""
        while self._idle:
            self._idle.pop().abort()

    def _taken(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and now - connection.idle_since < _IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _opened(self) -> _Connection:
        loop = asyncio.get_running_loop()
        context = _tls_context() if self._tls else None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=context)
        except TimeoutError:
            raise RequestFailed(f"cannot connect in {CONNECT_SECONDS:.0f} s", is_silent=True) from None
        except (OSError, ValueError) as error:  # its text may name the host
            raise RequestFailed(f"cannot connect ({type(error).__name__})", is_silent=True) from None
        return connection


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_reusable = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpReply] | None = None
        self._retry_after: float | None = None
        self._start()

    async def ask(self, request: bytes) -> HttpReply:
        """Send, and wait for the answer. Raises RequestFailed."""
        if self._transport is None:
            raise RequestFailed("the connection was lost", is_silent=False)
        self.is_reusable = False
        self._start()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        """Drop the connection, and what is under way on it."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by name

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("what came is no HTTP")

    def eof_received(self) -> None:
        if self._ends_with_connection and self._parser.get_status_code():
            self._finish(keeps_open=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        self._transport = None
        self._fail("the connection was reset" if exc else "the connection was closed before the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"retry-after" if value.isdigit() and len(value) < 6:  # a date is left to our own pause
                self._retry_after = float(value)
            case b"content-length" | b"transfer-encoding":
                self._ends_with_connection = False
            case b"content-encoding" if value.lower() != b"identity":
                self._fail("the answer is compressed, which was not asked for")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_ANSWER_BYTES:
            self._fail(f"the answer has more than {MAX_ANSWER_BYTES} bytes")

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._finish(keeps_open=self._parser.should_keep_alive() and not self._ends_with_connection)
        else:
            self._start()

    def _start(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._retry_after = None
        self._ends_with_connection = True

    def _finish(self, *, keeps_open: bool) -> None:
        self.is_reusable = keeps_open
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(HttpReply(self._parser.get_status_code(), bytes(self._body), self._retry_after))

    def _fail(self, reason: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(RequestFailed(reason, is_silent=False))
        self.abort()


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the machine's certificates: once


def _head(parts: SplitResult) -> bytes:
    """Every request's head, up to the value of content-length."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"POST {target} HTTP/1.1",
        f"host: {parts.netloc.rpartition('@')[2]}",
        "content-type: application/json",
        "accept-encoding: identity",
        "user-agent: trace-dagster",
    ]
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    return "\r\n".join([*lines, "content-length: "]).encode()
