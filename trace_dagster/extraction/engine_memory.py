"""Remembers where Cryo's answers are of no use, so that it is not asked again for every piece."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from trace_dagster.rpc.pools import Endpoint

FAILURES = 3
"""Pieces in a row that fail at Cryo, although their evidence is proven, before Cryo is avoided."""

AVOIDED_SECONDS = 3600.0
"""How long Cryo is then not asked."""

_Place = tuple[int, str, str]


class EngineMemory:
    """Failures of Cryo by chain, dataset and endpoint. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[_Place, int] = {}
        self._until: dict[_Place, float] = {}

    def is_avoided(self, chain_id: int, dataset_name: str, endpoint: Endpoint) -> bool:
        """Return whether Cryo should not be asked for this dataset at this endpoint."""
        return self._until.get((chain_id, dataset_name, endpoint.fingerprint), 0.0) > self._clock()

    def succeeded(self, chain_id: int, dataset_name: str, endpoint: Endpoint) -> None:
        """Forget the failures: Cryo gave rows."""
        self._failures.pop((chain_id, dataset_name, endpoint.fingerprint), None)

    def failed(self, chain_id: int, dataset_name: str, endpoint: Endpoint) -> bool:
        """Count a failure. Return True if Cryo is avoided from now on."""
        place = (chain_id, dataset_name, endpoint.fingerprint)
        with self._lock:
            self._failures[place] = self._failures.get(place, 0) + 1
            if self._failures[place] < FAILURES:
                return False
            self._failures[place] = 0
        self.avoid(chain_id, dataset_name, endpoint)
        return True

    def avoid(self, chain_id: int, dataset_name: str, endpoint: Endpoint) -> None:
        """Do not ask Cryo for AVOIDED_SECONDS."""
        self._until[chain_id, dataset_name, endpoint.fingerprint] = self._clock() + AVOIDED_SECONDS
