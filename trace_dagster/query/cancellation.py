"""A way to end a query from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancellation:
    """Is asked for at most once by one thread, and ends what another one runs. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self._is_asked = False

    @property
    def is_asked(self) -> bool:
        """Whether the query is to end."""
        return self._is_asked

    def ask(self) -> None:
        """End the query: what runs is ended now, and what begins later ends at once."""
        with self._lock:
            ends, self._ends = self._ends, []
            self._is_asked = True
        for end in ends:
            end()

    def on_ask(self, end: Callable[[], None]) -> None:
        """Call ``end`` when the query is to end, from the thread that asks; at once if it was asked already."""
        with self._lock:
            if not self._is_asked:
                self._ends.append(end)
                return
        end()
