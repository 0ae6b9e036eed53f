"""Hedged requests: a request that takes much longer than usual is sent a second time, and the first answer wins."""

from __future__ import annotations

from collections.abc import Iterable

from trace_dagster.gateway.counters import CallCounters, Medians

HEDGE_SHARE = 0.05
"""Largest part of all calls that may be sent a second time."""

HEDGE_SECONDS = 0.5
"""Shortest time before a second request, in seconds."""

HEDGE_MEDIANS = 4
"""Time before a second request, in medians of the method's latency."""


class Hedging:
    """When a second request is worth sending to one endpoint, by the latency of its methods."""

    def __init__(self, counters: CallCounters) -> None:
        self._counters = counters
        self._medians = Medians()

    def learn(self, methods: Iterable[str], seconds: float) -> None:
        """Record the latency of a request that was answered."""
        for method in methods:
            self._medians.add(method, seconds)

    def delay(self, methods: Iterable[str]) -> float | None:
        """Return the seconds after which a request is sent a second time, or None if the usual latency is unknown."""
        medians = [self._medians.of(method) for method in methods]
        known = [median for median in medians if median is not None]
        if len(known) < len(medians):
            return None
        return max(HEDGE_SECONDS, HEDGE_MEDIANS * max(known))

    def is_affordable(self, calls: int) -> bool:
        """Return whether this many more calls stay within HEDGE_SHARE."""
        return self._counters.hedges_sent + calls <= HEDGE_SHARE * self._counters.calls_sent
