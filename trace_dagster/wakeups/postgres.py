"""The default queue: a table in the registry's database, so that a laptop needs no other server."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from trace_dagster.registry.connection import Database
from trace_dagster.wakeups.driver import MAX_DELIVERIES, Delivery


class PgQueueDriver:
    """:class:`~trace_dagster.wakeups.driver.QueueDriver` over Postgres; its clock is the database's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self, bodies: Sequence[str]) -> None:
        """Enqueue all bodies in one transaction."""
        with self._database.transaction() as session:
            session.many("publish_message", [{"body": body} for body in bodies])

    def receive(self, limit: int, *, visibility_seconds: float) -> list[Delivery]:
        """Return visible messages, oldest first, after moving exhausted ones to the dead messages."""
        with self._database.transaction() as session:
            session.run("move_dead_messages", max_deliveries=MAX_DELIVERIES, limit=limit)
            rows = session.all(
                "receive_messages",
                limit=limit,
                max_deliveries=MAX_DELIVERIES,
                visibility_seconds=visibility_seconds,
            )
        return [Delivery(row["body"], row["receipt"], row["deliveries"]) for row in rows]

    def ack(self, receipts: Sequence[str]) -> None:
        """Delete the messages of these deliveries."""
        with self._database.transaction() as session:
            session.run("ack_messages", receipts=_uuids(receipts))

    def nack(self, receipts: Sequence[str], *, delay_seconds: float) -> None:
        """Make messages visible again after ``delay_seconds``."""
        with self._database.transaction() as session:
            session.run("requeue_messages", receipts=_uuids(receipts), seconds=delay_seconds)

    def extend(self, receipts: Sequence[str], *, visibility_seconds: float) -> None:
        """Hide messages for ``visibility_seconds`` from now on."""
        with self._database.transaction() as session:
            session.run("hide_messages", receipts=_uuids(receipts), seconds=visibility_seconds)

    def dead(self) -> int:
        """Return the exact number of dead messages."""
        with self._database.transaction() as session:
            row = session.one("dead_messages")
        return int(row["n"]) if row else 0


def _uuids(receipts: Sequence[str]) -> list[UUID]:
    """Parse receipts; drop those that are no UUID, which this driver never gave out."""
    found = []
    for receipt in receipts:
        try:
            found.append(UUID(receipt))
        except ValueError:
            continue
    return found
