"""Limits how often a login may fail."""

from __future__ import annotations

import threading
import time
from collections import Counter

MOST_PER_MINUTE = 30
_MOST_ADDRESSES = 10_000


class FailedLogins:
    """Counts the failed logins of this minute by address. Thread-safe.

    A code cannot be guessed (256 bits); this keeps a client that tries from using the registry all the time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = 0
        self._failures: Counter[str] = Counter()

    def may_try(self, address: str) -> bool:
        """Return whether this address failed less often than the limit."""
        with self._lock:
            self._begin_minute()
            return self._failures[address] < MOST_PER_MINUTE

    def note(self, address: str) -> None:
        """Count a failure. With very many addresses, those after the first ones are not counted."""
        with self._lock:
            self._begin_minute()
            if address in self._failures or len(self._failures) < _MOST_ADDRESSES:
                self._failures[address] += 1

    def _begin_minute(self) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute = minute
            self._failures.clear()
