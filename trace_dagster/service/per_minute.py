"""Counts what happens at most so often in a minute."""

from __future__ import annotations

import math
import time
from collections import deque

_MINUTE = 60.0


class PerMinute:
    """A limit over the last minute. Used by one thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: deque[float] = deque()

    def count(self) -> bool:
        """Count one more; return False, and count nothing, if that would be too many."""
        if self.number() >= self._most:
            return False
        self._times.append(time.monotonic())
        return True

    def number(self) -> int:
        """Return how many there were in the last minute."""
        since = time.monotonic() - _MINUTE
        while self._times and self._times[0] <= since:
            self._times.popleft()
        return len(self._times)

    def seconds_until_free(self) -> int:
        """Return the seconds after which one more can be counted, rounded up."""
        if self.number() < self._most:
            return 0
        return math.ceil(self._times[-self._most] + _MINUTE - time.monotonic())
