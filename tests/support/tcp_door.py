"""A TCP server before another one, which a test can take away: refused, or silent as a network that drops packets."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal


class Door:
    """Passes connections on to a port of this machine while it is ``open``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.state: Literal["open", "refused", "silent"] = "open"
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def take_away(self, state: Literal["refused", "silent"]) -> None:
        """End all connections; new ones are closed at once, or get no answer."""
        self.state = state
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def bring_back(self) -> None:
        """Pass connections on again. Those that got no answer end."""
        self.take_away("refused")
        self.state = "open"

    def close(self) -> None:
        """End everything."""
        self.take_away("refused")
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._sockets.append(client)
                if self.state == "refused":
                    client.close()
                elif self.state == "open":
                    server = socket.create_connection(("127.0.0.1", self._target))
                    self._sockets.append(server)
                    for pair in ((client, server), (server, client)):
                        threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
