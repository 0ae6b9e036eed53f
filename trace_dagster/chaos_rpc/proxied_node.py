"""The node behind the proxy. Its URL may hold a key: nothing here shows it."""

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
"""Longer than any client waits: a slow node shall look slow, not broken."""
_LOST = (OSError, asyncio.IncompleteReadError, ValueError)
"""What an unreachable or babbling node raises; TLS errors and timeouts are among the first."""


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where requests go, taken apart once."""

    host: str = field(repr=False)
    port: int
    tls: bool
    head: bytes = field(repr=False)
    """Every request's head, up to the value of content-length."""

    @classmethod
    def of(cls, url: str) -> NodeAddress:
        """Raises InvalidInput for what is no http(s) URL; it is not shown."""
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
    """One connection to a node, opened when needed and again when it was lost."""

    def __init__(self, address: NodeAddress | None) -> None:
        self.address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> NodeReply:
        """The node's answer; 502 when it gives none."""
        if self._streams is not None:  # a kept connection may have been closed meanwhile
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
        """Ends the connection, if there is one."""
        if self._streams is not None:
            self._streams[1].transport.abort()  # nothing is under way; a close would wait for TLS to say goodbye
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
    """The head of the answer proper, after any 1xx."""
    while (head := await read_head(reader)) is not None:
        if head.status >= 200:
            return head
    raise ConnectionResetError("the node closed the connection")


async def _connected(address: NodeAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = _tls_context() if address.tls else None
    return await asyncio.open_connection(address.host, address.port, ssl=context, limit=READ_AHEAD_BYTES)


@lru_cache(1)
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the machine's certificates: once


def _head(parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    lines = [f"POST {target} HTTP/1.1", f"host: {host}", "content-type: application/json", "accept-encoding: identity"]
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    return "\r\n".join([*lines, "content-length: "]).encode()
