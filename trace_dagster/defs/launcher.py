"""Dagster's default launcher, and whether a run's process still lives.

The default launcher cannot say that, so run monitoring never ends a run that died together with its code
server: it would hold one of the few run slots, and its batch, for ever.
"""

from __future__ import annotations

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

_TIMEOUT_SECONDS = 10


class MonitoredRunLauncher(DefaultRunLauncher):
    """Asks the code server that started a run; one that was started since knows nothing of it."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """FAILED when a code server that answers does not have the run; RUNNING while there is no answer."""
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "not known")
        try:
            reply = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_TIMEOUT_SECONDS)
            known = deserialize_value(reply, CanCancelExecutionResult).can_cancel
        except Exception:  # the code server is on its way up: the next look tells
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the code server does not answer")
        if known:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process ended with the code server that started it")
