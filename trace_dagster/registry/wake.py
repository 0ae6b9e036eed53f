"""Write wake-ups, as a part of the transaction that makes work due."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from psycopg.types.json import Jsonb

from trace_dagster.identity import outbox_id
from trace_dagster.registry.connection import Session


def wake(session: Session, task_ids: Sequence[UUID]) -> None:
    """Write a wake-up for each of these tasks that is not done, due when its backoff or its lease is over."""
    rows = session.all("wake_tasks", task_ids=list(task_ids))
    session.many(
        "insert_outbox",
        [
            {
                "outbox_id": outbox_id(row["task_id"], row["attempt"], row["wake_seq"]),
                "kind": "task_wakeup",
                "task_id": row["task_id"],
                "payload": Jsonb({"wake_seq": row["wake_seq"]}),
                "available_at": row["due_at"],
            }
            for row in rows
        ],
    )
