"""Heartbeats: one thread per process renews every lease the process holds, and shows that its run lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trace_dagster.errors import LeaseLost, Unavailable
from trace_dagster.registry.connection import Database
from trace_dagster.registry.heartbeats import beat, end_beats
from trace_dagster.registry.tasks import Lease, Tasks


class Heart:
    """Beats for the leases put under :meth:`beating`, every third of their lifetime."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._lock = threading.Lock()
        self._leases: dict[Lease, threading.Event] = {}
        self._runs: dict[str, Database] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace-heart", daemon=True)
        self._thread.start()

    @contextmanager
    def beating(self, lease: Lease) -> Iterator[threading.Event]:
        """Keep a lease alive inside the block; the event is set once the lease is lost."""
        lost = threading.Event()
        with self._lock:
            self._leases[lease] = lost
        try:
            yield lost
        finally:
            with self._lock:
                self._leases.pop(lease, None)

    @contextmanager
    def beating_run(self, database: Database, run_id: str) -> Iterator[None]:
        """Show inside the block that this run's process lives."""
        with suppress(Unavailable):
            beat(database, run_id)
        with self._lock:
            self._runs[run_id] = database
        try:
            yield
        finally:
            with self._lock:
                self._runs.pop(run_id, None)
            with suppress(Unavailable):
                end_beats(database, run_id)

    def stop(self) -> None:
        """End the thread; leases then lapse by themselves."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(self._tasks.lease_ttl_seconds / 3):
            with self._lock:
                held = list(self._leases.items())
                runs = list(self._runs.items())
            for run_id, database in runs:
                with suppress(Unavailable):
                    beat(database, run_id)
            for lease, lost in held:
                self._beat(lease, lost)

    def _beat(self, lease: Lease, lost: threading.Event) -> None:
        try:
            self._tasks.heartbeat(lease)
        except LeaseLost:
            lost.set()
        except Unavailable:
            return  # the next beat tries again; the lease outlives two missed ones
