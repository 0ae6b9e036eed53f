"""Free ports on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping

from trace_dagster.errors import InvalidInput, Unavailable

HOST = "127.0.0.1"
GRPC_OFFSET = 10_000
"""SeaweedFS also listens on each port + 10000."""

_LOWEST, _HIGHEST = 20_000, 32_000
"""Below the kernel's ephemeral ports, so that no outgoing connection takes one first."""


def is_free(port: int) -> bool:
    """Return whether no process listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


class Ports:
    """Hands out ports, each a single time. ``fixed`` holds the ports that settings fix, by variable."""

    def __init__(self, fixed: Mapping[str, int]) -> None:
        self._fixed_ports = fixed
        self._given: set[int] = set()
        self._random = random.SystemRandom()

    def take(self, variable: str | None = None, *, with_grpc: bool = False) -> int:
        """Return the port that ``variable`` fixes, else a free one. ``with_grpc`` also needs the port + 10000.

        Raises InvalidInput when the fixed one is taken, Unavailable when no free one is found.
        """
        if variable is not None and variable in self._fixed_ports:
            return self._fixed(variable, self._fixed_ports[variable], with_grpc=with_grpc)
        for _ in range(500):
            port = self._random.randint(_LOWEST, _HIGHEST - (GRPC_OFFSET if with_grpc else 0))
            if self._usable(port, with_grpc=with_grpc):
                self._given.add(port)
                return port
        raise Unavailable("no free port was found on 127.0.0.1")

    def _fixed(self, variable: str, port: int, *, with_grpc: bool) -> int:
        if not self._usable(port, with_grpc=with_grpc):
            also = f" (or {port + GRPC_OFFSET}, which it needs too)" if with_grpc else ""
            raise InvalidInput(f"port {port}{also} is taken: end what uses it, or set {variable} to another")
        self._given.add(port)
        return port

    def _usable(self, port: int, *, with_grpc: bool) -> bool:
        wanted = [port, port + GRPC_OFFSET] if with_grpc else [port]
        return not self._given & set(wanted) and all(is_free(candidate) for candidate in wanted)
