"""When to stop asking an endpoint that keeps failing, so that its askers can turn to another one."""

from __future__ import annotations

from trace_dagster.gateway.rate_limiter import Clock

FAILURES = 8
OPEN_SECONDS = 5.0


class Breaker:
    """Opens after FAILURES in a row; then lets one call through every OPEN_SECONDS until one succeeds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._closed_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the endpoint counts as down."""
        return self._failures >= FAILURES

    def admits(self) -> bool:
        """Whether a call may go to the endpoint; while it is down, the one that is let through to probe it."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._closed_at:
            return False
        self._closed_at = now + OPEN_SECONDS
        return True

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0

    def failed(self) -> None:
        """It did not."""
        self._failures += 1
        if self.is_open:
            self._closed_at = self._clock() + OPEN_SECONDS
