"""How an endpoint is best asked: how much at once, learned by asking."""

from __future__ import annotations

import math
import os
import threading
import time

from trace_dagster.errors import TraceError
from trace_dagster.rpc.client import chain_id_of
from trace_dagster.rpc.pools import Endpoint

NEAR_SECONDS = 0.005
"""An endpoint that answers faster is on this machine or next to it."""

NEAR_REQUESTS = 16
"""Cryo's requests at once to a near one: more of them only cost it connections, a third of its CPU time (measured)."""

NEAR_CALLS = (os.cpu_count() or 1) + 1
"""Engine calls at once to a near one: it answers as fast as the cores can ask, more calls only cost time (measured)."""

_PROBES = 3
_REMEMBERED_SECONDS = 600.0
_latency: dict[str, float] = {}
"""Of this process's endpoints, by URL."""
_NARROWER = 10


def requests_at_once(endpoint: Endpoint) -> int | None:
    """How many requests Cryo should keep under way in one call; None for Cryo's own default, 100."""
    return NEAR_REQUESTS if not endpoint.gateway_url and is_near(endpoint) else None


def is_near(endpoint: Endpoint) -> bool:
    """Whether an endpoint answers within NEAR_SECONDS; not as long as nobody knows."""
    seconds = latency_seconds(endpoint)
    return seconds is not None and seconds < NEAR_SECONDS


def latency_seconds(endpoint: Endpoint) -> float | None:
    """The shortest of some requests, None where one fails; an endpoint that answered is not asked again."""
    if endpoint.url in _latency:
        return _latency[endpoint.url]
    shortest = math.inf
    for _ in range(_PROBES):
        started = time.monotonic()
        try:
            chain_id_of(endpoint)
        except TraceError:
            return None
        shortest = min(shortest, time.monotonic() - started)
    _latency[endpoint.url] = shortest
    return shortest


class LogSpans:
    """How many blocks of logs an endpoint gives in one answer: providers refuse more than 10, 100 or 1,000.

    What is refused is asked for in a tenth, and the endpoint asked so for ten minutes. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, float]] = {}

    def of(self, endpoint: Endpoint, most: int) -> int:
        """Blocks to ask for at once, up to ``most``."""
        with self._lock:
            blocks, until = self._known.get(endpoint.url, (most, math.inf))
        return min(blocks, most) if time.monotonic() < until else most

    def refused(self, endpoint: Endpoint, blocks: int) -> None:
        """So many were too many."""
        with self._lock:
            self._known[endpoint.url] = (max(1, blocks // _NARROWER), time.monotonic() + _REMEMBERED_SECONDS)
