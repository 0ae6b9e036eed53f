"""Dagster's run queue, which refuses a run of block ranges that names none.

Without it such a run is queued, waits for a slot, and then fails with an error of Dagster that does not say what to do.
"""

from __future__ import annotations

import click
from dagster import DagsterRun, QueuedRunCoordinator
from dagster._core.run_coordinator import SubmitRunContext

from trace_dagster.dagster_instance.tags import require_partitions
from trace_dagster.errors import InvalidInput
from trace_dagster.planning.compactions import is_compaction
from trace_dagster.planning.run_groups import is_run_group


class RangeRunCoordinator(QueuedRunCoordinator):
    """Queues runs. A job of block ranges needs tags that name partitions."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue a run. Raises UsageError, which the `dagster` command prints as one line, if it names no partition."""
        run = context.dagster_run
        if is_run_group(run.job_name) or is_compaction(run.job_name):
            try:
                require_partitions(run.job_name, run.tags)
            except InvalidInput as error:
                raise click.UsageError(error.message) from None
        return super().submit_run(context)
