"""Methods whose answers at an endpoint contradict proven data, without being a lie. They are not asked there for an
hour; all processes share the notes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from trace_dagster.registry.connection import Database, storable
from trace_dagster.rpc.pools import Endpoint

UNRELIABLE_SECONDS = 3600.0
"""How long a method is not asked at an endpoint."""

FRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class UnreliableMethod:
    """A method that is not asked at an endpoint for the next ``left_seconds``."""

    endpoint: str
    method: str
    reason: str
    left_seconds: float


class UnreliableMethods:
    """Notes which methods of which endpoints are unreliable. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._found: frozenset[tuple[str, str, str]] = frozenset()
        self._read_at = float("-inf")

    def note_unreliable(self, endpoint: Endpoint, method: str, reason: str) -> None:
        """Note that an endpoint's answer to a method contradicts proven data. The endpoint's score does not change."""
        with self._database.transaction() as session:
            session.run("delete_reliable_again", seconds=UNRELIABLE_SECONDS)
            session.run(
                "note_unreliable",
                rpc_pool=endpoint.pool,
                fingerprint=endpoint.fingerprint,
                method=method,
                name=endpoint.name,
                reason=storable(reason),
            )
        with self._lock:
            self._read_at = float("-inf")

    def is_unreliable(self, endpoint: Endpoint, method: str) -> bool:
        """Return whether the method must not be asked at the endpoint now."""
        return (endpoint.pool, endpoint.fingerprint, method) in self._current()

    def all(self) -> list[UnreliableMethod]:
        """Return the methods that are not asked now, by endpoint."""
        with self._database.snapshot() as session:
            rows = session.all("unreliable_methods", seconds=UNRELIABLE_SECONDS)
        return [UnreliableMethod(row["name"], row["method"], row["reason"], row["left_seconds"]) for row in rows]

    def _current(self) -> frozenset[tuple[str, str, str]]:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                with self._database.snapshot() as session:
                    rows = session.all("unreliable_methods", seconds=UNRELIABLE_SECONDS)
                self._found = frozenset((row["rpc_pool"], row["fingerprint"], row["method"]) for row in rows)
                self._read_at = time.monotonic()
            return self._found
