"""Heartbeats: one thread per process renews the process's leases and records that its run is alive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trace_dagster.errors import LeaseLost, Unavailable
from trace_dagster.registry.connection import Database
from trace_dagster.registry.heartbeats import end_run_heartbeats, record_run_heartbeat
from trace_dagster.registry.tasks import Lease, Tasks


class Heartbeats:
    """Renews every added lease each third of its lifetime. Thread-safe."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._lock = threading.Lock()
        self._leases: dict[Lease, threading.Event] = {}
        self._runs: dict[str, Database] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace-heartbeats", daemon=True)
        self._thread.start()

    def add(self, lease: Lease) -> threading.Event:
        """Renew a lease until it is removed. The returned event is set when the lease is lost."""
        lost = threading.Event()
        with self._lock:
            self._leases[lease] = lost
        return lost

    def remove(self, lease: Lease) -> None:
        """Stop renewing a lease."""
        with self._lock:
            self._leases.pop(lease, None)

    @contextmanager
    def for_run(self, database: Database, run_id: str) -> Iterator[None]:
        """Record inside the block that this Dagster run's process is alive."""
        with suppress(Unavailable):
            record_run_heartbeat(database, run_id)
        with self._lock:
            self._runs[run_id] = database
        try:
            yield
        finally:
            with self._lock:
                self._runs.pop(run_id, None)
            with suppress(Unavailable):
                end_run_heartbeats(database, run_id)

    def close(self) -> None:
        """End the thread. Leases that were not removed expire."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(self._tasks.lease_ttl_seconds / 3):
            with self._lock:
                held = list(self._leases.items())
                runs = list(self._runs.items())
            for run_id, database in runs:
                with suppress(Unavailable):
                    record_run_heartbeat(database, run_id)
            for lease, lost in held:
                self._renew(lease, lost)

    def _renew(self, lease: Lease, lost: threading.Event) -> None:
        try:
            self._tasks.heartbeat(lease)
        except LeaseLost:
            lost.set()
        except Unavailable:
            return  # the next heartbeat tries again: a lease outlives two that failed
