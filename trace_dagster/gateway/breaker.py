"""A circuit breaker: calls to an endpoint that keeps failing stop, so that the callers can use another one."""

from __future__ import annotations

from trace_dagster.gateway.rate_limiter import Clock

FAILURES = 8
OPEN_SECONDS = 5.0


class Breaker:
    """Circuit breaker that opens after FAILURES failures in a row and then admits one probe every OPEN_SECONDS."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._tried_at = 0.0
        """When the last failure, or the last probe, was."""

    @property
    def is_open(self) -> bool:
        """Whether the endpoint counts as down."""
        return self._failures >= FAILURES

    def admits(self, pause_seconds: float = OPEN_SECONDS) -> bool:
        """Return whether a call may be sent: always while the breaker is closed, one probe every ``pause_seconds``
        while it is open.
        """
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._tried_at + pause_seconds:
            return False
        self._tried_at = now
        return True

    def succeeded(self) -> None:
        """Record a request that the endpoint answered, which closes the breaker."""
        self._failures = 0

    def failed(self) -> None:
        """Record a request that failed."""
        self._failures += 1
        if self.is_open:
            self._tried_at = self._clock()
