"""Which endpoint of a pool gets the next piece: the one with the least work, so that the endpoints' budgets add up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trace_dagster.errors import NoAnswer
from trace_dagster.rpc.pools import Endpoint, RpcPool

SILENT_SECONDS = 30.0
"""How long an endpoint that did not answer comes last."""

_SILENT_LOAD = 1_000_000

EndpointOrder = Callable[[RpcPool, Callable[[Endpoint], int]], list[Endpoint]]
"""Returns a pool's endpoints, the best first; the given function orders those that are equally good."""


def by_load(pool: RpcPool, load: Callable[[Endpoint], int]) -> list[Endpoint]:
    """Order a pool's endpoints by their load alone."""
    return sorted(pool.endpoints, key=load)


class EndpointLoad:
    """Pieces under way at each endpoint of this process. An endpoint that did not answer comes last for a while.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: Counter[str] = Counter()
        self._silent_until: dict[str, float] = {}

    def of(self, endpoint: Endpoint) -> int:
        """Return the endpoint's load; the lowest gets the next piece."""
        with self._lock:
            is_silent = time.monotonic() < self._silent_until.get(endpoint.url, 0.0)
            return self._pieces[endpoint.url] + (_SILENT_LOAD if is_silent else 0)

    @contextmanager
    def one_more(self, endpoint: Endpoint) -> Iterator[None]:
        """Count one piece more at the endpoint inside the block."""
        with self._lock:
            self._pieces[endpoint.url] += 1
        try:
            yield
        except NoAnswer:
            with self._lock:
                self._silent_until[endpoint.url] = time.monotonic() + SILENT_SECONDS
            raise
        finally:
            with self._lock:
                self._pieces[endpoint.url] -= 1
