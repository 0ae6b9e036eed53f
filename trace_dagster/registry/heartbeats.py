"""Beats of runs: that a process is alive, seen from any other machine."""

from __future__ import annotations

from trace_dagster.registry.connection import Database


def record_run_heartbeat(database: Database, run_id: str) -> None:
    """This run's process lives. Raises Unavailable."""
    with database.transaction() as session:
        session.run("beat_run", run_id=run_id)


def end_run_heartbeats(database: Database, run_id: str) -> None:
    """This run ended by itself."""
    with database.transaction() as session:
        session.run("forget_run", run_id=run_id)


def last_run_heartbeat(database: Database, run_id: str) -> str | None:
    """Something that differs after each beat; None for a run that never beat."""
    with database.transaction() as session:
        row = session.one("last_run_heartbeat", run_id=run_id)
    return str(row["beat_at"]) if row else None
