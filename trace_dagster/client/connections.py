"""Connections to a query service, which are used again only while they surely stay open."""

from __future__ import annotations

import socket
import time
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

MOST_IDLE_SECONDS = 3.0
"""Proxies close a connection that was idle, some after 5 s. A query that is sent at that moment would be lost."""

_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A machine that is gone is noticed after a minute. Not every system has each of these options."""


class _Fresh(HTTPConnection):
    """Is treated as closed when its last answer is old, so that the pool opens another connection."""

    _answered_at = 0.0

    def getresponse(self) -> Any:
        """Return the answer and note its time."""
        answer = super().getresponse()
        self._answered_at = time.monotonic()
        return answer

    @property
    def is_connected(self) -> bool:
        """Return whether the pool may use this connection again."""
        return super().is_connected and time.monotonic() - self._answered_at < MOST_IDLE_SECONDS


class _FreshTls(_Fresh, HTTPSConnection):
    """The same with TLS."""


class _FreshPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Fresh


class _FreshTlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _FreshTls


def connections() -> urllib3.PoolManager:
    """Return a pool of connections that sends nothing twice by itself."""
    pool = urllib3.PoolManager(maxsize=8, retries=False, socket_options=_socket_options())
    pool.pool_classes_by_scheme = {"http": _FreshPool, "https": _FreshTlsPool}
    return pool


def _socket_options() -> list[tuple[int, int, int]]:
    known = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _KEEPALIVE if hasattr(socket, name)]
    return [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]
