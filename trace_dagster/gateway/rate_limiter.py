"""The rate limit of one endpoint: the configured limit, lowered by the endpoint's refusals."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns monotonic seconds."""

WINDOW_SECONDS = 1.03
"""Seconds of the window for one second of the provider: the network delay varies between calls."""

BURST_SECONDS = 0.2
LEAST_RATE = 1.0
PAUSE_SECONDS = 0.5
MOST_PAUSE_SECONDS = 30.0
_FACTOR = 0.7
_NO_BOUND = 1 << 30
_GROWTH, _GROWTH_GROWTH = 0.05, 0.01
"""Part of the limit (or of the achieved rate) regained per second after a refusal, and its increase per second."""

_LEAST_TOP = 10.0


class RateLimiter:
    """Limiter that grants at most ``rate`` calls in any rolling second, in bursts of up to a fifth of a second.

    A refusal lowers the rate, one time for all calls that were refused together. The rate then grows back to the limit;
    without a limit it grows from the rate that was achieved. Without a limit and without refusals every call is
    granted.
    """

    def __init__(self, limit: float | None, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._granted: deque[tuple[float, int]] = deque()
        self._recent = 0
        self._tokens = 1.0 if limit is None else _burst(limit)
        self._refilled_at = clock()
        self._paused_until = 0.0
        self._low: float | None = None
        """The rate right after the last refusal."""
        self._top = 0.0
        """Base of the growth: the limit, or the rate at which the endpoint refused."""
        self._grows_from = 0.0

    @property
    def limit(self) -> float | None:
        """Most calls per second, or None; may be changed at any time."""
        return self._limit

    @limit.setter
    def limit(self, limit: float | None) -> None:
        self._refill(self._clock())
        self._limit = limit

    @property
    def rate(self) -> float | None:
        """Calls per second at present; None if there is no bound."""
        return self._rate(self._clock())

    @property
    def is_recovered(self) -> bool:
        """True if no refusal lowers the rate any more: it is back at the limit, or at twice the refused rate."""
        rate = self.rate
        return self._low is None or (self._limit is None and rate is not None and rate >= 2 * self._top)

    def grant(self, wanted: int) -> int:
        """Return how many of ``wanted`` calls may be sent now; they count as sent."""
        now = self._clock()
        self._refill(now)
        granted = min(wanted, self._room(now))
        if granted > 0:
            self._granted.append((now, granted))
            self._recent += granted
            if self._rate(now) is not None:
                self._tokens -= granted
        return max(granted, 0)

    def worth_waiting_for(self, waiting: int) -> int:
        """Return how many of ``waiting`` calls to send together: up to half a burst, so that they are not sent
        one by one.
        """
        rate = self.rate
        return waiting if rate is None else max(1, min(waiting, int(_burst(rate) / 2)))

    def seconds_until(self, calls: int) -> float:
        """Return the seconds until ``calls`` calls (at most a burst) can be granted if no other calls are sent."""
        now = self._clock()
        self._refill(now)
        wait = max(0.0, self._paused_until - now)
        rate = self._rate(now)
        if rate is None:
            return wait
        wait = max(wait, (calls - self._tokens) / rate)
        capacity, window = _capacity(rate)
        over = self._recent + calls - capacity
        for sent_at, count in self._granted:
            if over <= 0:
                break
            over -= count
            wait = max(wait, sent_at + window - now)
        return wait

    def refused(self, retry_after: float | None = None) -> None:
        """Record a refusal: pause for ``retry_after`` seconds (default PAUSE_SECONDS) and lower the rate."""
        now = self._clock()
        rate = self._rate(now)
        pause = min(PAUSE_SECONDS if retry_after is None else retry_after, MOST_PAUSE_SECONDS)
        if now >= self._paused_until:  # else other calls report the same congestion
            achieved = self._recent / WINDOW_SECONDS
            current = achieved if rate is None else min(rate, max(achieved, rate * _FACTOR))
            self._top = self._limit or max(current, _LEAST_TOP)
            self._low = max(min(LEAST_RATE, self._top), current * _FACTOR)
            self._tokens = 0.0
        self._paused_until = max(self._paused_until, now + pause)
        self._grows_from = self._paused_until

    def _rate(self, now: float) -> float | None:
        if self._low is None:
            return self._limit
        well = max(0.0, now - self._grows_from)
        grown = self._low + self._top * (_GROWTH * well + _GROWTH_GROWTH * well**2)
        if self._limit is not None and grown >= self._limit:
            self._low = None
            return self._limit
        return grown

    def _refill(self, now: float) -> None:
        rate = self._rate(now)
        if rate is not None:
            self._tokens = min(_burst(rate), self._tokens + rate * (now - self._refilled_at))
        self._refilled_at = now
        window = WINDOW_SECONDS if rate is None else _capacity(rate)[1]
        while self._granted and self._granted[0][0] <= now - window:
            self._recent -= self._granted.popleft()[1]

    def _room(self, now: float) -> int:
        if now < self._paused_until:
            return 0
        rate = self._rate(now)
        if rate is None:
            return _NO_BOUND
        return min(int(self._tokens + 1e-9), _capacity(rate)[0] - self._recent)


def _burst(rate: float) -> float:
    return max(1.0, rate * BURST_SECONDS)


def _capacity(rate: float) -> tuple[int, float]:
    """Return (calls, seconds): the most calls in any window of this length."""
    return (int(rate), WINDOW_SECONDS) if rate >= 1 else (1, WINDOW_SECONDS / rate)
