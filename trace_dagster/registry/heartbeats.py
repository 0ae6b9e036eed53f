"""Heartbeats of runs: they show any machine that a run's process is alive."""

from __future__ import annotations

from trace_dagster.registry.connection import Database


def record_run_heartbeat(database: Database, run_id: str) -> None:
    """Record that this run's process is alive. Raise Unavailable if Postgres does not answer."""
    with database.transaction() as session:
        session.run("record_run_heartbeat", run_id=run_id)


def end_run_heartbeats(database: Database, run_id: str) -> None:
    """Remove the heartbeat of a run that ended."""
    with database.transaction() as session:
        session.run("delete_run_heartbeat", run_id=run_id)


def last_run_heartbeat(database: Database, run_id: str) -> str | None:
    """Return a value that differs after each heartbeat, or None if the run never sent one."""
    with database.transaction() as session:
        row = session.one("last_run_heartbeat", run_id=run_id)
    return str(row["beat_at"]) if row else None
