"""Dagster's default run launcher with a health check of run processes.

The default launcher has no health check, so run monitoring never ends a run that died together with its code server.
Such a run would hold one of the few run slots, and its batch, for ever. Runs write heartbeats to the registry
(``ingest/heartbeat.py``). The code server is no source: after a reload it does not know the runs started before.
"""

from __future__ import annotations

import os
import time

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

from trace_dagster.config.process import start_process
from trace_dagster.errors import TraceError
from trace_dagster.planning.dispatcher import BATCH_TAG
from trace_dagster.registry.connection import Database
from trace_dagster.registry.heartbeats import last_run_heartbeat

_START_SECONDS = 60.0
"""Upper bound of the time from a run's start to its first heartbeat."""


class MonitoredRunLauncher(DefaultRunLauncher):
    """Reports a run as failed when its heartbeat has not changed for a lease's lifetime."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._seen: dict[str, tuple[str | None, float]] = {}
        self._database: Database | None = None
        self._patience_seconds = 0.0

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: Dagster's run monitoring calls ``check_run_worker_health``."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return FAILED if the heartbeat has not changed for a lease's lifetime, measured by this process's clock."""
        try:
            beat = last_run_heartbeat(self._registry(), run.run_id)
        except TraceError:
            self._seen.clear()  # while the registry is unreachable, no run can write a heartbeat
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the registry does not answer")
        if beat is None and BATCH_TAG not in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "this run writes no heartbeats")
        before, since = self._seen.get(run.run_id, (None, 0.0))
        if run.run_id not in self._seen or before != beat:
            self._seen[run.run_id] = (beat, time.monotonic())
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if time.monotonic() - since < self._patience_seconds + (0.0 if beat else _START_SECONDS):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._seen[run.run_id]
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process stopped writing heartbeats")

    def _registry(self) -> Database:
        if self._database is None:
            settings = start_process(os.environ)
            self._patience_seconds = settings.ranges.lease_ttl_seconds
            self._database = Database(settings.postgres_url, max_connections=1)
        return self._database
