"""Limits how often a login may fail."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

MOST_PER_MINUTE = 30
"""After so many failures, one try a second is looked at."""
_MOST_ADDRESSES = 10_000


class FailedLogins:
    """Counts the failed logins of this minute by address. Thread-safe.

    A code cannot be guessed (256 bits); this keeps a client that tries from using the registry all the time. An address
    with many failures is slowed down and not shut out: others behind it may have a valid link.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = 0
        self._failures: Counter[str] = Counter()
        self._last_second: dict[str, int] = {}
        """In which second an address above the limit tried last."""

    def may_try(self, address: str) -> bool:
        """Return whether to look at a code from this address. Above the limit that is one code in each second."""
        with self._lock:
            self._begin_minute()
            if self._failures[address] < MOST_PER_MINUTE:
                return True
            second = int(self._clock())
            is_first = self._last_second.get(address) != second
            self._last_second[address] = second
            return is_first

    def note(self, address: str) -> None:
        """Count a failure. With very many addresses, those after the first ones are not counted."""
        with self._lock:
            self._begin_minute()
            if address in self._failures or len(self._failures) < _MOST_ADDRESSES:
                self._failures[address] += 1

    def _begin_minute(self) -> None:
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute = minute
            self._failures.clear()
            self._last_second.clear()
