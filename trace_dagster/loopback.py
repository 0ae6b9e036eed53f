"""This machine's own address: who is there, and how to be."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from trace_dagster.errors import InvalidInput

HOST = "127.0.0.1"


def on_loopback(url: str | None) -> bool:
    """Whether a URL names this machine, which a proxy of the environment cannot reach; None does not."""
    return url is not None and urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}


def bound(port: int) -> socket.socket:
    """A socket of an asyncio server, bound; port 0 takes a free one. Raises InvalidInput when the port is taken."""
    # IPPROTO_TCP by name: asyncio turns Nagle's delay off only then
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise InvalidInput("the port is taken: end what uses it, or take another --port", port=port) from None
    return listener
