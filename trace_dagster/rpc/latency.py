"""How many requests an endpoint serves best at the same time, and how many blocks of logs: measured for each
endpoint.
"""

from __future__ import annotations

import math
import os
import threading
import time

from trace_dagster.errors import TraceError
from trace_dagster.loopback import on_loopback
from trace_dagster.rpc.client import chain_id_of
from trace_dagster.rpc.pools import Endpoint

NEAR_SECONDS = 0.005
"""Seconds; an endpoint that answers faster is on this machine or in the same network."""

FAR_SECONDS = 0.02
"""Seconds; an endpoint whose fastest answer takes longer is used through a gateway."""

NEAR_REQUESTS = 16
"""Cryo's concurrent requests to a near endpoint. More of them only add connections, a third of its CPU time
(measured).
"""

NEAR_CALLS = (os.cpu_count() or 1) + 1
"""Concurrent engine calls to a near endpoint. It answers as fast as the cores can send; more calls cost time
(measured).
"""

_PROBES = 3
_REMEMBERED_SECONDS = 600.0
_latency: dict[str, float] = {}
"""Latency in seconds of this process's endpoints, by URL."""
_NARROWER = 10


def requests_at_once(endpoint: Endpoint) -> int | None:
    """Return how many requests Cryo should keep in flight in one call; None for Cryo's own default, 100."""
    return NEAR_REQUESTS if not endpoint.gateway_url and is_near(endpoint) else None


def is_near(endpoint: Endpoint) -> bool:
    """Return whether an endpoint answers within NEAR_SECONDS; False while its latency is unknown."""
    seconds = latency_seconds(endpoint)
    return seconds is not None and seconds < NEAR_SECONDS


def is_far(endpoint: Endpoint) -> bool:
    """Return whether an endpoint is far away; False if it does not answer, so that the caller sees the
    endpoint's error.
    """
    seconds = latency_seconds(endpoint)
    return seconds is not None and seconds > FAR_SECONDS


def latency_seconds(endpoint: Endpoint) -> float | None:
    """Return the shortest latency of several requests in seconds, cached per endpoint; None if a request fails."""
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
    """The blocks of logs that an endpoint returns in one answer: some providers refuse more than 10, 100 or 1,000.

    After a refusal a tenth of the blocks is requested for ten minutes. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, float]] = {}

    def of(self, endpoint: Endpoint, most: int) -> int:
        """Return the number of blocks to request together, up to ``most``."""
        with self._lock:
            blocks, until = self._known.get(endpoint.url, (most, math.inf))
        return min(blocks, most) if time.monotonic() < until else most

    def refused(self, endpoint: Endpoint, blocks: int) -> None:
        """Record that the endpoint refused a request for this many blocks.

        For the next ten minutes :meth:`of` returns at most a tenth of them.
        """
        with self._lock:
            self._known[endpoint.url] = (max(1, blocks // _NARROWER), time.monotonic() + _REMEMBERED_SECONDS)


def is_far_or_silent(endpoint: Endpoint) -> bool:
    """Return whether an endpoint on another machine is far away or does not answer. False for one on this machine."""
    if on_loopback(endpoint.url):
        return False
    return is_far(endpoint) or latency_seconds(endpoint) is None
