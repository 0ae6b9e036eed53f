"""Rate limits that several gateways share: each gateway records its endpoints in Postgres and uses its share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from uuid import uuid4

from trace_dagster.errors import TraceError
from trace_dagster.registry.connection import Database
from trace_dagster.registry.gateway_heartbeats import forget_gateway, record_gateway_heartbeat

BEAT_SECONDS = 2.0
ASKED_SECONDS = 10.0
"""Seconds after its last call for which an endpoint counts as in use; later its limit belongs to the other gateways."""


class BudgetShares:
    """Thread that sends this gateway's heartbeats to Postgres; if Postgres does not answer, the last shares hold.

    It is a thread because psycopg's calls block. ``asked`` returns the fingerprints of the endpoints in use; ``shared``
    receives, by fingerprint, the number of gateways that use each of them.
    """

    def __init__(
        self, dsn: str, asked: Callable[[], Collection[str]], shared: Callable[[Mapping[str, int]], None]
    ) -> None:
        self._database = Database(dsn, max_connections=1, connect_timeout_seconds=BEAT_SECONDS)
        self._gateway = uuid4()
        self._asked = asked
        self._shared = shared
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-shares", daemon=True)

    def start(self) -> None:
        """Start to send heartbeats."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and remove this gateway's row, so that the other gateways get its share."""
        self._ended.set()
        self._thread.join(2 * BEAT_SECONDS)
        self._database.close()

    def _run(self) -> None:
        while True:
            with suppress(TraceError):
                self._shared(record_gateway_heartbeat(self._database, self._gateway, self._asked()))
            if self._ended.wait(BEAT_SECONDS):
                break
        with suppress(TraceError):
            forget_gateway(self._database, self._gateway)
