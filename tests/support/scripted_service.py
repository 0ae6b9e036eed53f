"""A server that answers requests as a test says, byte for byte: what a proxy, a failure or another server may send."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import parse_headers
from io import BufferedReader
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Any
    body: bytes


Script = Callable[[Asked], bytes]
"""Returns the bytes to send."""


@dataclass
class Scripted:
    """The server while it runs."""

    port: int
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    closed: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)
    """Has an entry for each connection that is closed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def scripted_service(script: Script, *, keeps_open: bool = False) -> Iterator[Scripted]:
    """Answer each request by ``script``; yield the server, which records the requests.

    With ``keeps_open`` a connection takes requests until the client closes it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Scripted(listener.getsockname()[1])

        def accept() -> None:
            with suppress(OSError):  # the end of the block closes the listener
                while True:
                    connection, _ = listener.accept()
                    found.connections += 1
                    threading.Thread(target=_serve, args=(connection, found, script, keeps_open), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _serve(connection: socket.socket, found: Scripted, script: Script, keeps_open: bool) -> None:
    with connection, connection.makefile("rb") as received, suppress(OSError):
        while (request := _received(received)) is not None:
            found.asked.append(request)
            connection.sendall(script(request))
            if not keeps_open:
                break
    found.closed.put(None)


def _received(stream: BufferedReader) -> Asked | None:
    """Read one request; None if the client closed the connection."""
    first = stream.readline().decode().split()
    if not first:
        return None
    headers = parse_headers(stream)
    return Asked(first[0], first[1], headers, stream.read(int(headers.get("content-length") or 0)))


def reply(status: int, body: Any = b"", *, connection: str = "close", **headers: str) -> bytes:
    """Return a whole HTTP answer; a body that is no bytes is sent as JSON.

    With ``connection="keep-alive"`` the client expects that it can ask again on the same connection.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    head = f"HTTP/1.1 {status} X\r\n{''.join(lines)}content-length: {len(data)}\r\nconnection: {connection}\r\n\r\n"
    return head.encode() + data


def refusal(status: int, code: str, message: str, **headers: str) -> bytes:
    """Return an error of the service."""
    return reply(status, {"error": {"status": status, "code": code, "message": message}}, **headers)


def chunked(pieces: list[bytes], *, ended: bool = True, **headers: str) -> bytes:
    """Return a chunked answer; without ``ended`` it breaks off after its last chunk."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{lines}connection: close\r\n\r\n".encode()
    body = b"".join(f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in pieces if each)
    return head + body + (b"0\r\n\r\n" if ended else b"")
