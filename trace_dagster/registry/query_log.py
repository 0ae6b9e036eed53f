"""The log of queries: who asked, of which datasets, with what outcome. It has no SQL, no parameters and no error text.

A query is logged before it takes its snapshot. While it runs, sweep keeps every file that it may read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from trace_dagster.errors import Refused
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.catalog import Opened
from trace_dagster.registry.connection import Database
from trace_dagster.registry.tokens import Caller

QueryFormat = Literal["json", "arrow", "csv", "parquet"]
Outcome = Literal["done", "truncated", "busy", "refused", "timeout", "failed", "cancelled", "broken"]

DENIALS_PER_MINUTE = 60
"""Denied queries that are logged in a minute: callers without a token must not fill the registry's disk."""


@dataclass(frozen=True, slots=True)
class RunningQuery:
    """A query that has begun and not ended."""

    query_id: UUID
    token_name: str | None
    format: QueryFormat
    started_at: datetime
    deadline_at: datetime
    datasets: tuple[str, ...]
    """Full names of what it reads; empty until its files are known."""


class QueryLog:
    """Writes a row when a query begins, and completes it when the query ends. Thread-safe."""

    def __init__(self, database: Database, org_id: UUID = DEFAULT_ORG) -> None:
        self._database = database
        self._org_id = org_id

    def begin(self, query_id: UUID, caller: Caller | None, form: QueryFormat, deadline_seconds: float) -> None:
        """Log that a query begins. It must end within ``deadline_seconds``, time in the queue included.

        Raises Refused if a query with this id was logged before.
        """
        with self._database.transaction() as session:
            begun = session.run(
                "begin_query",
                query_id=query_id,
                org_id=self._org_id,
                token_id=caller and caller.token_id,
                token_name=caller and caller.name,
                format=form,
                deadline_seconds=deadline_seconds,
            )
        if not begun:
            raise Refused("a query with this id was asked before: choose another id, or let the service choose one")

    def read(self, query_id: UUID, opened: Opened) -> None:
        """Log the snapshot and the files that a query reads."""
        with self._database.transaction() as session:
            session.run(
                "log_snapshot",
                query_id=query_id,
                snapshot=opened.header.cursor,
                datasets=Jsonb(_datasets(opened)),
            )

    def end(self, query_id: UUID, outcome: Outcome, rows: int | None = None, sent_bytes: int | None = None) -> None:
        """Log how a query ended. Only the first end of a query counts."""
        with self._database.transaction() as session:
            session.run("end_query", query_id=query_id, outcome=outcome, rows=rows, bytes=sent_bytes)

    def denied(self) -> bool:
        """Log a query without a valid token; return False if too many were denied in the last minute to log it."""
        with self._database.transaction() as session:
            return bool(session.run("log_denial", org_id=self._org_id, most=DENIALS_PER_MINUTE))

    def running(self) -> list[RunningQuery]:
        """Return the queries that run, the oldest first. A query whose service died is in it until its deadline."""
        with self._database.transaction() as session:
            rows = session.all("running_queries", org_id=self._org_id)
        return [
            RunningQuery(
                row["query_id"],
                row["token_name"],
                row["format"],
                row["started_at"],
                row["deadline_at"],
                tuple(sorted(row["datasets"])),
            )
            for row in rows
        ]


def _datasets(opened: Opened) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for each in opened.header.relations:
        files = opened.files.get(each.dataset_uuid)
        keys = files.all_keys() if files else []
        found[each.name] = {
            "files": len(keys),
            "digest": _digest(keys),
            "first_block": each.first_block,
            "last_block": each.last_shown,
        }
    return found


def _digest(keys: Sequence[str]) -> str:
    """Return 16 hex digits that tell two sets of files apart."""
    return sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]
