"""The connection to the node behind the proxy. Its URL may contain an API key, which this module never shows."""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

from trace_dagster.chaos_rpc.transport import JSON, NodeReply
from trace_dagster.chaos_rpc.wire import READ_AHEAD_BYTES, HttpHead, read_body, read_head
from trace_dagster.errors import InvalidInput

CONNECT_TIMEOUT_SECONDS = 10.0
ANSWER_TIMEOUT_SECONDS = 600.0
"""Seconds; longer than any client waits, so that a slow node looks slow and not broken."""
_LOST = (OSError, asyncio.IncompleteReadError, ValueError)
"""Errors of an unreachable node or of one that does not speak HTTP; TLS errors and timeouts are subclasses of
OSError.
"""


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """The parsed URL of a node."""

    host: str = field(repr=False)
    port: int
    tls: bool
    head: bytes = field(repr=False)
    """Head of every request, up to the value of content-length."""

    @classmethod
    def of(cls, url: str) -> NodeAddress:
        """Parse an http(s) URL. Raises InvalidInput without the URL's text."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = SplitResult("", "", "", "", ""), None
        usable = url.isascii() and url.isprintable() and " " not in url and port != 0
        if parts.scheme not in {"http", "https"} or not parts.hostname or not usable:
            raise InvalidInput("a node's address must be an http:// or https:// URL (value not shown)")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, _head(parts))


class ProxiedNode:
    """One connection to a node, opened on demand and again after it was lost."""

    def __init__(self, address: NodeAddress | None) -> None:
        self.address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> NodeReply:
        """Return the node's response, or a 502 if there is none."""
        if self._streams is not None:  # the node may have closed an idle connection
            try:
                return await self._ask_once(body)
            except _LOST:
                self.close()
        try:
            return await self._ask_once(body)
        except _LOST:
            self.close()
            return NodeReply(502, b"the node does not answer", "text/plain")

    def close(self) -> None:
        """Close the connection if there is one."""
        if self._streams is not None:
            self._streams[1].transport.abort()  # no request is in flight; a normal close would wait for the end of TLS
            self._streams = None

    async def _ask_once(self, body: bytes) -> NodeReply:
        if self.address is None:
            raise ConnectionRefusedError("there is no node yet")
        if self._streams is None:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                self._streams = await _connected(self.address)
        reader, writer = self._streams
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            writer.write(self.address.head + b"%d\r\n\r\n" % len(body) + body)
            await writer.drain()
            head = await _final_head(reader)
            found = b"" if head.status in {204, 304} else await read_body(reader, head, until_end=True)
        if not head.keeps_open or not {"content-length", "transfer-encoding"} & set(head.headers):
            self.close()
        return NodeReply(head.status, found, head.headers.get("content-type", JSON))


async def _final_head(reader: asyncio.StreamReader) -> HttpHead:
    """Return the head of the final response, after any 1xx response."""
    while (head := await read_head(reader)) is not None:
        if head.status >= 200:
            return head
    raise ConnectionResetError("the node closed the connection")


async def _connected(address: NodeAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = _tls_context() if address.tls else None
    return await asyncio.open_connection(address.host, address.port, ssl=context, limit=READ_AHEAD_BYTES)


@lru_cache(1)
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()  # loading the system's certificates is slow, therefore done only one time


def _head(parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    lines = [f"POST {target} HTTP/1.1", f"host: {host}", "content-type: application/json", "accept-encoding: identity"]
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    return "\r\n".join([*lines, "content-length: "]).encode()
