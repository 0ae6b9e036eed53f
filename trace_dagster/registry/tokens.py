"""Tokens of the query service, one-time links to its page, and the sessions that these begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from trace_dagster.registry.grants import ALL, Grants

TokenKind = Literal["token", "link", "session"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what a valid token says."""

    token_id: UUID
    kind: TokenKind
    name: str
    grants: Grants = ALL
    max_queries: int | None = None
    """Queries that run or wait at a time; None: as many as the service allows anyone."""
    queries_per_minute: int | None = None
