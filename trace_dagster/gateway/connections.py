"""HTTP connections to one endpoint: keep-alive, with a timeout and a size limit for each response.

The bytes of a response come from the gateway's budget. A response that is declared too large is refused at its header;
one that does not fit now is not read before it does.

The URL may contain an API key, therefore no error text contains any part of it.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from functools import cache
from typing import NamedTuple, cast
from urllib.parse import SplitResult, unquote, urlsplit

import httptools

from trace_dagster.gateway.byte_budget import ByteBudget, Reservation, Waiting
from trace_dagster.rpc.decompression import CompressionError, Decompressor
from trace_dagster.rpc.http import CONNECT_SECONDS, MAX_ANSWER_BYTES, WHOLE_SECONDS

_IDLE_SECONDS = 20.0
"""Seconds after which an idle connection is not used again, because the server may have closed its side."""

_MOST_HEAD_BYTES = 64 * 1024
"""Of a response's headers."""

_MOST_FRAMING = 8
"""Bytes received for each byte of a body: a chunk of one byte takes six."""

_GROWTH_BYTES = 256 * 1024
"""Steps in which a response of unknown length takes bytes from the budget."""

_NOT_DECOMPRESSED = "the answer is compressed, and cannot be decompressed"
_TOO_LARGE = f"the answer has more than {MAX_ANSWER_BYTES} bytes"


class RequestFailed(Exception):
    """Request without a usable response; the text gives the reason without the URL."""

    def __init__(self, reason: str, *, is_silent: bool, is_too_large: bool = False) -> None:
        super().__init__(reason)
        self.is_too_large = is_too_large
        """True if the response has more bytes than are read of one."""
        self.is_silent = is_silent
        """True if no byte arrived, so that a smaller request would not help."""


class HttpReply(NamedTuple):
    """One HTTP response."""

    status: int
    body: bytes
    retry_after: float | None = None
    """Seconds from the Retry-After header, or None."""
    location: str = ""
    """Where a redirect leads."""


class Connections:
    """Connections to one endpoint, opened on demand; the most recently used one is used first."""

    def __init__(self, url: str, budget: ByteBudget, holder: str) -> None:
        """``holder`` is the endpoint's name in the budget of received bytes."""
        self._budget = budget
        self._holder = holder
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if tls else 80)
        self._tls = tls
        self._head = _head(parts)
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, *, seconds: float = WHOLE_SECONDS) -> HttpReply:
        """Send a POST request with a JSON body and return the response, which may take ``seconds``.

        Raises RequestFailed.
        """
        connection = self._taken() or await self._opened(min(seconds, CONNECT_SECONDS))
        try:
            async with asyncio.timeout(seconds):
                reply = await connection.ask(self._head + b"%d\r\n\r\n" % len(body) + body)
        except TimeoutError:
            raise RequestFailed(f"no whole answer in {seconds:.0f} s", is_silent=True) from None
        finally:
            if connection.is_reusable:
                connection.idle_since = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                connection.abort()
        return reply

    def close(self) -> None:
        """Close the idle connections."""
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

    async def _opened(self, seconds: float) -> _Connection:
        loop = asyncio.get_running_loop()
        context = _tls_context() if self._tls else None
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._budget, self._holder), self._host, self._port, ssl=context
                )
        except TimeoutError:
            raise RequestFailed(f"cannot connect in {seconds:.0f} s", is_silent=True) from None
        except (OSError, ValueError) as error:  # the error's text may contain the host
            raise RequestFailed(f"cannot connect ({type(error).__name__})", is_silent=True) from None
        return connection


class _Connection(asyncio.Protocol):
    """One connection, which carries one request at a time."""

    def __init__(self, budget: ByteBudget, holder: str) -> None:
        self._budget = budget
        self._holder = holder
        self._reservation: Reservation | None = None
        self._waiting: Waiting | None = None
        self.idle_since = 0.0
        self.is_reusable = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpReply] | None = None
        self._retry_after: float | None = None
        self._decompressor: Decompressor | None = None
        self._start()

    async def ask(self, request: bytes) -> HttpReply:
        """Send a request and wait for the response. Raises RequestFailed."""
        if self._transport is None:
            raise RequestFailed("the connection was lost", is_silent=False)
        self.is_reusable = False
        self._start()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        """Close the connection and fail the request that it carries."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses of asyncio's

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # data without a request
            self.abort()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("what came is no HTTP")
        is_too_long = self._received > _MOST_HEAD_BYTES + _MOST_FRAMING * self._body_received + len(data)
        if self._answer is not None and is_too_long:
            self._fail("the answer has more headers than any node sends")

    def eof_received(self) -> None:
        if self._ends_with_connection and self._parser.get_status_code():
            self._finish(keeps_open=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        self._transport = None
        self._fail("the connection was reset" if exc else "the connection was closed before the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"retry-after" if (
                value.isdigit() and len(value) < 6
            ):  # a date is ignored: the rate limiter then uses its own pause
                self._retry_after = float(value)
            case b"content-length":
                self._ends_with_connection = False
                self._declared = int(value) if value.isdigit() and len(value) < 20 else MAX_ANSWER_BYTES + 1
            case b"transfer-encoding":
                self._ends_with_connection = False
            case b"location":
                self._location = value.decode("latin-1")
            case b"content-encoding" if value.strip().lower() not in {b"", b"identity"}:
                self._decompress(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if self._declared > MAX_ANSWER_BYTES:
            self._fail(_TOO_LARGE, is_too_large=True)
            return
        self._reservation = self._budget.reserve(self._holder, self._declared)
        if self._reservation is None and self._transport is not None:
            self._transport.pause_reading()
            self._waiting = self._budget.wait(self._holder, self._declared, self._read_on)

    def on_body(self, body: bytes) -> None:
        if self._answer is None:  # the response was refused, and the rest of the received data is still being parsed
            return
        self._body_received += len(body)
        if self._decompressor is not None:
            try:
                body = self._decompressor.feed(body)
            except CompressionError:
                self._fail(_NOT_DECOMPRESSED)
                return
        self._body += body
        size = len(self._body)
        if size > MAX_ANSWER_BYTES:
            self._fail(_TOO_LARGE, is_too_large=True)
        elif not self._has_room(size):
            self._fail("its answers are too large together")

    def _decompress(self, encoding: str) -> None:
        """Decompress the body that follows, which was compressed without a request for it."""
        try:
            self._decompressor = Decompressor(encoding, MAX_ANSWER_BYTES)
        except CompressionError:
            self._fail(_NOT_DECOMPRESSED)

    def _has_room(self, size: int) -> bool:
        """Return whether the body may have ``size`` bytes; one of unknown length takes more from the budget."""
        reservation = self._reservation
        if reservation is None or size <= reservation.bytes:  # None: what had arrived when the reading was paused
            return True
        return reservation.grow_to(size + _GROWTH_BYTES)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._finish(keeps_open=self._parser.should_keep_alive() and not self._ends_with_connection)
        else:
            self._start()

    def _read_on(self, reservation: Reservation) -> None:
        """Receive the response, because its bytes fit into the budget now."""
        self._waiting = None
        self._reservation = reservation
        if self._transport is not None:
            self._transport.resume_reading()

    def _start(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._release()
        self._received = 0
        self._declared = 0
        self._body_received = 0
        self._decompressor = None
        self._retry_after = None
        self._location = ""
        self._ends_with_connection = True

    def _release(self) -> None:
        """Drop the response's bytes and their reservation."""
        self._body = bytearray()
        self._reservation = None
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            if self._transport is not None:
                self._transport.resume_reading()

    def _finish(self, *, keeps_open: bool) -> None:
        if self._decompressor is not None and self._body_received:
            try:
                self._decompressor.end()
            except CompressionError:
                self._fail(_NOT_DECOMPRESSED)
                return
        self.is_reusable = keeps_open
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            status = self._parser.get_status_code()
            answer.set_result(HttpReply(status, bytes(self._body), self._retry_after, self._location))
        self._release()

    def _fail(self, reason: str, *, is_too_large: bool = False) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(RequestFailed(reason, is_silent=False, is_too_large=is_too_large))
        self._release()
        self.abort()


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()  # loading the system's certificates is slow, therefore done only one time


def _head(parts: SplitResult) -> bytes:
    """Return the head of every request, up to the value of content-length."""
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
