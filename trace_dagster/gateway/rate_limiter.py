"""How fast one endpoint may be asked: a limit somebody set, and what its refusals teach."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds, never going back."""

WINDOW_SECONDS = 1.03
"""A second as the provider counts it, when calls arrive: the way there is now longer, now shorter."""

BURST_SECONDS = 0.2
LEAST_RATE = 1.0
PAUSE_SECONDS = 0.5
MOST_PAUSE_SECONDS = 30.0
_FACTOR = 0.7
_NO_BOUND = 1 << 30
_GROWTH, _GROWTH_GROWTH = 0.05, 0.01
"""Of the limit (or of what was achieved), regained each second after a refusal; the longer it went well, the faster."""

_LEAST_TOP = 10.0


class RateLimiter:
    """Grants calls: at most the rate in any rolling second, evenly, with bursts of a fifth of a second.

    A refusal lowers the rate for everyone, once however many calls were refused together; then it grows back to
    the limit, or without one from what was achieved upwards. Without limit and refusals everything is granted.
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
        """What growth is measured by: the limit, or the rate at which the endpoint refused."""
        self._grows_from = 0.0

    @property
    def limit(self) -> float | None:
        """Calls a second at most; may be set while it runs."""
        return self._limit

    @limit.setter
    def limit(self, limit: float | None) -> None:
        self._refill(self._clock())
        self._limit = limit

    @property
    def rate(self) -> float | None:
        """Calls a second now; None where nothing bounds them."""
        return self._rate(self._clock())

    @property
    def is_recovered(self) -> bool:
        """True if no refusal lowers the rate any more: it is back at the limit, or at twice the refused rate."""
        rate = self.rate
        return self._low is None or (self._limit is None and rate is not None and rate >= 2 * self._top)

    def grant(self, wanted: int) -> int:
        """How many of ``wanted`` calls may be sent now; they count as sent."""
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
        """How many calls to send together when ``waiting`` are held back: half a burst, not each one alone."""
        rate = self.rate
        return waiting if rate is None else max(1, min(waiting, int(_burst(rate) / 2)))

    def seconds_until(self, calls: int) -> float:
        """When about so many would be granted, if nobody else asks; 0 for now. ``calls`` within a burst."""
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
        """The endpoint said that it is asked too much; ``retry_after`` seconds it wants to be left alone."""
        now = self._clock()
        rate = self._rate(now)
        pause = min(PAUSE_SECONDS if retry_after is None else retry_after, MOST_PAUSE_SECONDS)
        if now >= self._paused_until:  # else the same congestion, seen by other calls
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
    """(calls, seconds): so many in any window of so long."""
    return (int(rate), WINDOW_SECONDS) if rate >= 1 else (1, WINDOW_SECONDS / rate)
