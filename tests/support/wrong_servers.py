"""Servers that are not what they should be: no object store, TLS with an unknown authority, no HTTP, an odd node."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import trustme

HOST = "127.0.0.1"


class _Page(BaseHTTPRequestHandler):
    """Answers every request with a page that is not found, as most web servers would."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(404)
        self.send_header("content-length", "13")
        self.end_headers()
        self.wfile.write(b"<html></html>")

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Banner(BaseRequestHandler):
    """Greets as an SSH server does."""

    def handle(self) -> None:
        self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.request.recv(4096)


@contextmanager
def _serving(server: ThreadingTCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def web_server(*, tls: bool = False) -> Iterator[int]:
    """Serve pages that are not found; yield the port. With ``tls`` its certificate has an unknown authority."""
    server = ThreadingHTTPServer((HOST, 0), _Page)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert(HOST).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with _serving(server) as port:
        yield port


@contextmanager
def banner_server() -> Iterator[int]:
    """Serve a protocol that is not HTTP; yield the port."""
    with _serving(ThreadingTCPServer((HOST, 0), _Banner)) as port:
        yield port


class _RawNode(BaseRequestHandler):
    """Answers one HTTP request with any bytes, and then closes the connection."""

    def handle(self) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            if not (part := self.request.recv(65536)):
                return
            asked += part
        head, _, body = asked.partition(b"\r\n\r\n")
        length = int(next(line.partition(b":")[2] for line in head.lower().split(b"\r\n") if b"content-length" in line))
        while len(body) < length:
            body += self.request.recv(65536)
        self.request.sendall(self.server.respond(json.loads(body)))  # type: ignore[attr-defined]


@contextmanager
def raw_node(respond: Callable[[Any], bytes]) -> Iterator[str]:
    """Serve a node that answers a decoded JSON-RPC request with the bytes of a whole HTTP response; yield its URL."""
    server = ThreadingTCPServer((HOST, 0), _RawNode)
    server.respond = respond  # type: ignore[attr-defined]
    with _serving(server) as port:
        yield f"http://{HOST}:{port}"
