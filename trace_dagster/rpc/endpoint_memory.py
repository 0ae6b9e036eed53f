"""What this process learned about endpoints: methods that they do not offer, batches that they do not serve.

An endpoint may change, so nothing is remembered for longer than REMEMBERED_SECONDS.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

REMEMBERED_SECONDS = 3600.0


class EndpointMemory:
    """Facts about endpoints, by their fingerprint. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._facts: dict[tuple[str, Hashable], tuple[int, float]] = {}

    def note_lacked(self, fingerprint: str, method: str) -> None:
        """Remember that an endpoint does not offer a method."""
        self._note(fingerprint, method, 1)

    def is_lacked(self, fingerprint: str, method: str) -> bool:
        """Return whether an endpoint is known not to offer a method."""
        return self._fact(fingerprint, method) is not None

    def note_batch(self, fingerprint: str, most: int) -> None:
        """Remember that an endpoint serves batches of ``most`` calls, and not of many more."""
        self._note(fingerprint, None, self.batch(fingerprint, most))

    def batch(self, fingerprint: str, most: int) -> int:
        """Return how many calls a batch may have: ``most``, or fewer if the endpoint refused that many."""
        return min(most, self._fact(fingerprint, None) or most)

    def _note(self, fingerprint: str, what: Hashable, value: int) -> None:
        with self._lock:
            self._facts[fingerprint, what] = (value, self._clock() + REMEMBERED_SECONDS)

    def _fact(self, fingerprint: str, what: Hashable) -> int | None:
        with self._lock:
            found = self._facts.get((fingerprint, what))
            if found is not None and found[1] <= self._clock():
                del self._facts[fingerprint, what]
                return None
            return found[0] if found else None


memory = EndpointMemory()
"""What this process knows of the endpoints that it asks itself; a gateway has its own."""
