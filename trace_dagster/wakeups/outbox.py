"""The outbox: events for the queue and for Dagster, written in the transaction of the change that they report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from trace_dagster.registry.connection import Database
from trace_dagster.registry.publications import Publication, publication
from trace_dagster.registry.wake import wake
from trace_dagster.wakeups.driver import QueueDriver, WakeUp

WAKEUPS_AT_ONCE = 4096
"""Wake-ups that one sensor tick or command publishes; the next tick publishes the rest."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One ``range_committed`` event."""

    outbox_id: UUID
    chain_id: int
    dataset_key: str
    derived: bool
    publication: Publication


class Outbox:
    """Publishes the events in the outbox table. Any number of publishers may run at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self, queue: QueueDriver, *, limit: int = WAKEUPS_AT_ONCE) -> int:
        """Send up to ``limit`` due wake-ups to the queue, then mark them as sent; returns how many.

        After a crash between the two steps they are sent again. Raises Unavailable if the queue does not answer; the
        wake-ups then stay due.
        """
        with self._database.transaction() as session:
            rows = session.all("unsent_wakeups", limit=limit)
            if rows:
                queue.publish([WakeUp(row["task_id"], row["payload"]["wake_seq"]).encode() for row in rows])
                session.run("mark_sent", outbox_ids=[row["outbox_id"] for row in rows])
        return len(rows)

    def rewake(self, *, patience_seconds: float, limit: int) -> int:
        """Write a new wake-up for up to ``limit`` tasks that are overdue by ``patience_seconds``; returns how many."""
        with self._database.transaction() as session:
            tasks = [
                row["task_id"] for row in session.all("overdue_tasks", patience_seconds=patience_seconds, limit=limit)
            ]
            if tasks:
                session.run("detach_from_batches", task_ids=tasks)
                wake(session, tasks)
        return len(tasks)

    def unconfirmed_commits(self, *, older_than_seconds: float, limit: int) -> list[Commit]:
        """Return commits that are not yet confirmed to be shown in Dagster, oldest first."""
        with self._database.transaction() as session:
            rows = session.all("unconfirmed_commits", older_than_seconds=older_than_seconds, limit=limit)
        return [
            Commit(
                row["outbox_id"],
                row["chain_id"],
                row["dataset_key"],
                row["kind"] == "derived",
                publication(row, created=True),
            )
            for row in rows
        ]

    def mark_confirmed(self, outbox_ids: Sequence[UUID]) -> None:
        """Record that Dagster shows these commits."""
        with self._database.transaction() as session:
            session.run("mark_sent", outbox_ids=list(outbox_ids))
