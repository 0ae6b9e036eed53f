"""The loopback address: recognises its URLs, and binds server sockets, to it unless told otherwise."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

from trace_dagster.errors import InvalidInput

HOST = "127.0.0.1"


def on_loopback(url: str | None) -> bool:
    """Return whether a URL is on this machine, where no HTTP proxy must be used. False for None."""
    return url is not None and urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}


def bound(port: int, host: str = HOST) -> socket.socket:
    """Return a socket for asyncio servers that is bound to an IPv4 address. Port 0 takes a free port.

    Raises InvalidInput if the port is taken, or if ``host`` is no address of this machine.
    """
    # asyncio only turns off Nagle's delay if the protocol is given as IPPROTO_TCP
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput(
                "this machine has no such IPv4 address: 0.0.0.0 listens on all of its addresses", host=host
            ) from None
        raise InvalidInput(
            "the port is taken: end the process that uses it, or use another --port", port=port
        ) from None
    return listener
