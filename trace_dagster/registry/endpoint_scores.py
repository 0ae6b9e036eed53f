"""Scores of rpc endpoints, by how often each lied. All processes share them, so one process's finding helps the
others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from trace_dagster.messages.logs import component_log
from trace_dagster.registry.connection import Database, storable
from trace_dagster.rpc.pools import Endpoint, RpcPool

_log = component_log("registry")

HALF_LIFE_SECONDS = 600.0
"""A lie counts half after this time, so that a repaired node is used first again."""

FRESH_SECONDS = 5.0
_FORGIVEN = 0.25


@dataclass(frozen=True, slots=True)
class EndpointScore:
    """Penalty of one endpoint that returned data which the chain contradicts (a lie). Higher is worse."""

    endpoint: str
    lies: int
    score: float
    """Number of lies, each weighted by its age. An endpoint above 0.25 is tried last."""
    last_lie_seconds: float
    reason: str


class EndpointScores:
    """Orders the endpoints of a pool by their scores. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._scores: dict[tuple[str, str], float] = {}
        self._read_at = float("-inf")

    def best_first(self, pool: RpcPool, among: Callable[[Endpoint], int] = lambda endpoint: 0) -> list[Endpoint]:
        """Return the pool's endpoints; those that lied lately come last, the worst at the end. ``among`` orders
        equal ones.
        """
        if len(pool.urls) == 1:
            return list(pool.endpoints)
        scores = self._current()

        def weight(endpoint: Endpoint) -> tuple[float, int]:
            score = scores.get((endpoint.pool, endpoint.fingerprint), 0.0)
            return score if score > _FORGIVEN else 0.0, among(endpoint)

        return sorted(pool.endpoints, key=weight)

    def record_lie(self, endpoint: Endpoint, reason: str) -> None:
        """Record one lie of an endpoint."""
        with self._database.transaction() as session:
            session.run(
                "record_lie",
                rpc_pool=endpoint.pool,
                fingerprint=endpoint.fingerprint,
                name=endpoint.name,
                reason=storable(reason),
                half_life_seconds=HALF_LIFE_SECONDS,
            )
        _log.warning("endpoint_scored", endpoint=endpoint.name, reason=reason)
        with self._lock:
            self._read_at = float("-inf")

    def all(self) -> list[EndpointScore]:
        """Return the score of every endpoint that lied, by name."""
        with self._database.snapshot() as session:
            rows = session.all("endpoint_scores", half_life_seconds=HALF_LIFE_SECONDS)
        return [
            EndpointScore(row["name"], row["lies"], round(row["score"], 3), row["lied_seconds"], row["reason"])
            for row in rows
        ]

    def _current(self) -> dict[tuple[str, str], float]:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                with self._database.snapshot() as session:
                    rows = session.all("endpoint_scores", half_life_seconds=HALF_LIFE_SECONDS)
                self._scores = {(row["rpc_pool"], row["fingerprint"]): row["score"] for row in rows}
                self._read_at = time.monotonic()
            return self._scores
