"""A turnstile that lets a few threads through at once, those with the lowest block first."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turnstile:
    """``places`` threads are inside at once; of those that wait the one with the lowest block is next. Thread-safe.

    So the streams of a run stay over the same blocks, however different their pieces are, and what they share is
    not thrown away before the slowest has had it.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, threading.Event]] = []
        self._arrivals = itertools.count()

    @contextmanager
    def passing(self, block: int) -> Iterator[None]:
        """Wait for a place; it is given back at the end of the block."""
        self._enter(block)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, block: int) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            called = threading.Event()
            heapq.heappush(self._waiting, (block, next(self._arrivals), called))
        called.wait()

    def _leave(self) -> None:
        """A place goes straight to whoever is next: nobody who comes now can slip in between."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._free += 1
