"""HTTP/1.1 for both sides of the proxy: one message at a time, with size limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

MAX_BODY_BYTES = 64 * 1024 * 1024
READ_AHEAD_BYTES = 256 * 1024
"""Bytes that are read before they are needed; also the size limit of a message's head."""


class TooLarge(ValueError):
    """A message is larger than its limit."""


@dataclass(frozen=True, slots=True)
class HttpHead:
    """A message without its body; header names are in lower case."""

    start: str
    headers: dict[str, str]

    @property
    def status(self) -> int:
        """The response's status code. Raises ValueError if it is not an HTTP response."""
        return int(self.start.split(" ", 2)[1] if self.start.startswith("HTTP/") and " " in self.start else "")

    @property
    def verb(self) -> str:
        """The request's method."""
        return self.start.partition(" ")[0]

    @property
    def keeps_open(self) -> bool:
        """Whether another message may follow on this connection."""
        wish = self.headers.get("connection", "").lower()
        return wish == "keep-alive" if "HTTP/1.0" in self.start else wish != "close"


async def read_head(reader: asyncio.StreamReader) -> HttpHead | None:
    """Read the next message's head; None at the end of the connection. Raises TooLarge, IncompleteReadError."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    except asyncio.LimitOverrunError:
        raise TooLarge("the head is too large") from None
    start, *lines = text.strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return HttpHead(start, {name.strip().lower(): value.strip() for name, _, value in pairs})


async def read_body(reader: asyncio.StreamReader, head: HttpHead, *, until_end: bool = False) -> bytes:
    """Read the body that belongs to a head; ``until_end``: without a length the body ends with the connection.

    Raises TooLarge, ValueError for an invalid length, IncompleteReadError.
    """
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    length = head.headers.get("content-length")
    if length is not None:
        return await reader.readexactly(_bounded(int(length)))
    if not until_end:
        return b""
    parts: list[bytes] = []
    while part := await reader.read(READ_AHEAD_BYTES):
        parts.append(part)
        _bounded(sum(map(len, parts)))
    return b"".join(parts)


def answer(status: int, body: bytes, content_type: str, *, keep_open: bool) -> bytes:
    """Encode an HTTP response."""
    return (
        f"HTTP/1.1 {status} {_reason(status)}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: {'keep-alive' if keep_open else 'close'}\r\n\r\n"
    ).encode("latin-1") + body


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while length := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        size = _bounded(size + _bounded(length))
        parts.append(await reader.readexactly(length))
        await reader.readexactly(2)
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass  # trailers
    return b"".join(parts)


def _bounded(size: int) -> int:
    if not 0 <= size <= MAX_BODY_BYTES:
        raise TooLarge("the body is too large")
    return size
