"""What a gateway counts, per endpoint."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histogram in seconds; one more bucket has none."""

_SAMPLES = 32
_ENOUGH = 8


@dataclass(slots=True)
class Histogram:
    """Latencies of HTTP requests that were answered."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total_seconds += seconds


@dataclass(slots=True)
class CallCounters:
    """Since the gateway started."""

    calls_asked: int = 0
    """By askers of this gateway."""
    calls_sent: int = 0
    """To the endpoint, retries and hedges included."""
    requests_sent: int = 0
    """HTTP requests; each carries one call or several."""
    calls_kept: int = 0
    """Answered from what an earlier call fetched."""
    calls_joined: int = 0
    """Answered by a call that was under way already."""
    calls_derived: int = 0
    """Read out of the answer to a wider call."""
    retries: int = 0
    refusals: int = 0
    """Calls the endpoint said it had no budget for (429 and its other forms)."""
    hedges_sent: int = 0
    hedges_won: int = 0
    faults: int = 0
    """HTTP requests without a usable answer."""
    bytes_in: int = 0
    latency: Histogram = field(default_factory=Histogram)


class Medians:
    """How long each method takes, by its last requests."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}
        self._ordered: dict[str, list[float]] = {}

    def add(self, method: str, seconds: float) -> None:
        """One more request with this method took so long."""
        recent = self._recent.setdefault(method, deque())
        ordered = self._ordered.setdefault(method, [])
        recent.append(seconds)
        insort(ordered, seconds)
        if len(recent) > _SAMPLES:
            del ordered[bisect_left(ordered, recent.popleft())]

    def of(self, method: str) -> float | None:
        """The median; None before there are enough."""
        ordered = self._ordered.get(method, ())
        return ordered[len(ordered) // 2] if len(ordered) >= _ENOUGH else None
