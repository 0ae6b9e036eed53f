"""Deletes old entries of the logs of changes and queries while jobs run, so that a registry does not grow until someone
calls sweep.
"""

from __future__ import annotations

from trace_dagster.registry.retention import Retention
from trace_dagster.runtime import Runtime

PRUNE_SECONDS = 3600.0
"""Seconds between two deletions."""

CHANGES_PER_TICK = 20_000
"""Changes that a tick deletes. If more are old, the next tick goes on."""


def prune_if_due(runtime: Runtime, due_at: float, now: float) -> float:
    """Delete changes and reorganisations older than TRACE_CHANGES_DAYS, and what is logged of queries older than
    TRACE_QUERY_LOG_DAYS, if it is time; return when the next deletion is due, in seconds since 1970.
    """
    if now < due_at:
        return due_at
    retention, days = Retention(runtime.database), runtime.settings.registry.changes_days
    retention.prune_reorgs(days)
    retention.prune_queries(runtime.settings.query.log_days)
    deleted = retention.prune_changes(days, dry_run=False, most=CHANGES_PER_TICK)
    return now if deleted >= CHANGES_PER_TICK else now + PRUNE_SECONDS
