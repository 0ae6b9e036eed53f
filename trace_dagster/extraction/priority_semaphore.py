"""A semaphore that admits the waiting thread with the lowest block first."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PrioritySemaphore:
    """At most ``places`` threads hold it; of the waiting threads, the one with the lowest block is next. Thread-safe.

    This keeps the streams of a run close to the same blocks, although they cut their ranges differently. The evidence
    that they share is then still in memory when the slowest stream needs it.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, threading.Event]] = []
        self._arrivals = itertools.count()

    @property
    def waiting(self) -> int:
        """Number of threads that wait."""
        with self._lock:
            return len(self._waiting)

    @contextmanager
    def holding(self, block: int) -> Iterator[None]:
        """Wait for a place and hold it inside the block."""
        self._acquire(block)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, block: int) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            admitted = threading.Event()
            heapq.heappush(self._waiting, (block, next(self._arrivals), admitted))
        admitted.wait()

    def _release(self) -> None:
        """Hand the place to the next waiting thread, so that no thread that arrives now can take it."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._free += 1
