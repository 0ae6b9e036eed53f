"""How many calls one HTTP request carries: as many as the endpoint accepts while the response size stays bounded."""

from __future__ import annotations

from trace_dagster.gateway.rate_limiter import Clock

TARGET_BYTES = 8 * 1024 * 1024
PROBE_SECONDS = 60.0
_HEAVY_PREFIXES = ("debug_", "trace_")
_HEAVY = frozenset({"eth_getBlockReceipts"})
_FIRST_GUESS_BYTES = 256 * 1024
_LIGHT_GUESS_BYTES = 1024
_FALL = 0.2
"""Weight of a smaller answer in the estimate of the answer size; a larger answer replaces the estimate at once."""


def is_heavy(method: str) -> bool:
    """Return whether answers to a method may be so large that they do not share an HTTP response with other methods."""
    return method in _HEAVY or method.startswith(_HEAVY_PREFIXES)


class BatchSize:
    """Largest batch that one endpoint is known to accept: halved after a refusal, and probed upwards later."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._size = most
        self._clock = clock
        self._probe_at = 0.0

    @property
    def size(self) -> int:
        """Calls in one HTTP request at present."""
        if self._size < self._most and self._clock() >= self._probe_at:
            self._size = min(self._most, self._size * 2)
            self._probe_at = self._clock() + PROBE_SECONDS
        return self._size

    def refused(self, most: int) -> None:
        """Record that the endpoint did not serve a batch, and that the next may have ``most`` calls."""
        self._size = max(1, min(self._size, most))
        self._probe_at = self._clock() + PROBE_SECONDS


class AnswerSizes:
    """Estimated size in bytes of an answer to each method, from the answers received."""

    def __init__(self) -> None:
        self._estimates: dict[str, float] = {}

    def learn(self, method: str, size: int) -> None:
        """Record the size in bytes of one answer to ``method``."""
        known = self._estimates.get(method)
        if known is None or size > known:
            self._estimates[method] = size
        else:
            self._estimates[method] = known + (size - known) * _FALL

    def calls_within_target(self, method: str) -> int:
        """Return how many answers to ``method`` fit into TARGET_BYTES, at least one."""
        guess = _FIRST_GUESS_BYTES if is_heavy(method) else _LIGHT_GUESS_BYTES
        return max(1, int(TARGET_BYTES / max(1.0, self._estimates.get(method, guess))))
