"""The counters of a gateway, per endpoint."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histogram in seconds; the last bucket has no bound."""

_SAMPLES = 32
_ENOUGH = 8


@dataclass(slots=True)
class Histogram:
    """Histogram of the latency of HTTP requests that were answered."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Add one latency in seconds."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total_seconds += seconds


@dataclass(slots=True)
class CallCounters:
    """Counters since the gateway started."""

    calls_asked: int = 0
    """Calls that the gateway received from its callers."""
    calls_sent: int = 0
    """Calls sent to the endpoint, including retries and hedges."""
    requests_sent: int = 0
    """HTTP requests sent; each carries one or more calls."""
    calls_kept: int = 0
    """Calls answered from the cache."""
    calls_joined: int = 0
    """Calls that joined a call in flight."""
    tip_calls: int = 0
    """Calls about the newest blocks, which are sent before all others."""
    heads: int = 0
    """New heads that the endpoint pushed."""
    subscriptions_lost: int = 0
    calls_derived: int = 0
    """Calls answered from the answer to a wider call."""
    retries: int = 0
    refusals: int = 0
    """Calls that the endpoint rejected because of its rate limit (HTTP 429 and its equivalents)."""
    hedges_sent: int = 0
    hedges_won: int = 0
    faults: int = 0
    """HTTP requests without a usable response."""
    bytes_in: int = 0
    latency: Histogram = field(default_factory=Histogram)


class Medians:
    """Median latency in seconds of each method, over its last requests."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}
        self._ordered: dict[str, list[float]] = {}

    def add(self, method: str, seconds: float) -> None:
        """Add the latency of one request that contained this method."""
        recent = self._recent.setdefault(method, deque())
        ordered = self._ordered.setdefault(method, [])
        recent.append(seconds)
        insort(ordered, seconds)
        if len(recent) > _SAMPLES:
            del ordered[bisect_left(ordered, recent.popleft())]

    def of(self, method: str) -> float | None:
        """Return the median latency, or None if there are too few requests."""
        ordered = self._ordered.get(method, ())
        return ordered[len(ordered) // 2] if len(ordered) >= _ENOUGH else None
