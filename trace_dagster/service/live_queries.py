"""The queries that wait or run now, by their ids. Used by the event loop's thread only."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from trace_dagster.errors import Cancelled, Refused
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.registry.tokens import Caller
from trace_dagster.service.errors import HttpRefusal
from trace_dagster.service.places import Waiter
from trace_dagster.service.query_body import Format

_REVOKED = "the query was ended because its token was revoked"
_LOGGED_OUT = "the query was ended because its session ended: it logged out, or its login link was revoked"

QueryState = Literal["queued", "running", "sending", "cancelling"]


@dataclass(eq=False, slots=True)
class LiveQuery:
    """One query on its way from the request to the end of its answer."""

    query_id: UUID
    caller: Caller
    form: Format
    waiter: Waiter
    cancellation: Cancellation = field(default_factory=Cancellation)
    state: QueryState = "queued"
    arrived: float = field(default_factory=time.monotonic)
    rows: int = 0
    reason: str | None = None
    """Why it was cancelled; None if it was not."""
    is_logged: bool = False
    """Whether the log has a row of it, which is to be completed."""

    @property
    def seconds(self) -> float:
        """Seconds since the request."""
        return time.monotonic() - self.arrived

    def sends(self, rows: int) -> None:
        """Note that rows are sent from now on."""
        if self.state == "running":
            self.state = "sending"
        self.rows = rows

    def cancel(self, reason: str = "the query was cancelled") -> None:
        """End it, whether it waits or runs. Its process is killed at once. The first reason counts."""
        self.reason = self.reason or reason
        if self.state == "queued":
            self.waiter.end(Cancelled(self.reason))
        self.state = "cancelling"
        self.cancellation.ask()

    def require_wanted(self) -> None:
        """Raise Cancelled with the reason if it was cancelled."""
        if self.reason is not None:
            raise Cancelled(self.reason)


class LiveQueries:
    """Knows each query until its answer has ended."""

    def __init__(self) -> None:
        self._by_id: dict[UUID, LiveQuery] = {}

    @contextmanager
    def added(self, query: LiveQuery) -> Iterator[None]:
        """Know a query during the block. Raises Refused if another one with its id is known."""
        if query.query_id in self._by_id:
            raise Refused("a query with this id is already running: choose another id, or let the service choose one")
        self._by_id[query.query_id] = query
        try:
            yield
        finally:
            del self._by_id[query.query_id]

    def callers(self) -> set[UUID]:
        """Return the ids of the tokens whose queries wait or run."""
        return {query.caller.token_id for query in self._by_id.values()}

    def cancel_revoked(self, callers: Collection[UUID]) -> None:
        """End all queries of these tokens and sessions."""
        for query in self._by_id.values():
            if query.caller.token_id in callers:
                query.cancel(_LOGGED_OUT if query.caller.kind == "session" else _REVOKED)

    def of(self, caller: Caller, query_id: UUID) -> LiveQuery:
        """Return a query of this caller. Raises HttpRefusal 404 if it has none with this id."""
        found = self._by_id.get(query_id)
        if found is None or found.caller.token_id != caller.token_id:
            raise HttpRefusal(404, "not_found", "no query with this id waits or runs: it ended, or is not the token's")
        return found
