"""Observe heads: the latest and finalized block of each rpc pool, and since when it is that block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import TraceError, Unavailable
from trace_dagster.registry.connection import Database, Row, storable
from trace_dagster.registry.jobs import follow
from trace_dagster.registry.streams import StreamRow

FIXED_TARGET_POLL_SECONDS = 5.0
"""Seconds between observations of a fixed target's pool while blocks are missing; follow_head has its own interval."""

NOT_SET = -1
"""``finality_blocks`` of the observations for jobs that do not set it."""

ReadHead = Callable[[StreamRow], tuple[int, int]]
"""Returns (latest, finalized) block numbers of a stream's pool."""


@dataclass(frozen=True, slots=True)
class PoolHead:
    """The chain as one pool last showed it. Ages are in seconds, by the database's clock."""

    latest: int
    finalized: int
    age_seconds: float
    """Time since the pool last answered."""
    unchanged_seconds: float
    """Time since the finalized block last moved."""
    error: str | None
    """Reason why the pool did not answer last time; None if it answered."""


class Heads:
    """Observes every pool that a stream with work left needs."""

    def __init__(self, database: Database, read_head: ReadHead) -> None:
        self._database = database
        self._read_head = read_head

    def observe(self, streams: Iterable[StreamRow]) -> int:
        """Observe the pools that are due; an error of one pool does not stop the others. Return how many answered."""
        wanted = sorted((s for s in streams if is_open(s)), key=_pool_key)
        answered = 0
        for _, group in groupby(wanted, key=_pool_key):
            members = list(group)
            if self._is_due(members):
                answered += self._ask(max(members, key=lambda stream: stream.to_block or 0))
        return answered

    def _is_due(self, members: list[StreamRow]) -> bool:
        row = _observation(self._database, members[0])
        return row is None or row["asked_seconds"] >= min(_interval(stream) for stream in members)

    def _ask(self, stream: StreamRow) -> bool:
        try:
            latest, finalized = self._read_head(stream)
            if not 0 <= min(latest, finalized) <= max(latest, finalized) < MAX_BLOCK:
                raise Unavailable(f"rpc pool {stream.rpc_pool} shows an impossible block number")
        except TraceError as error:
            with self._database.transaction() as session:
                session.run("observe_failure", **pool_of(stream), error=storable(error.message))
            return False
        with self._database.transaction() as session:
            session.run("observe_head", **pool_of(stream), latest=latest, finalized=min(finalized, latest))
        return True


def observed(row: Row | None) -> PoolHead | None:
    """Return the head in a row of ``observed_head``, or None if the pool has never answered."""
    if row is None or row["latest"] is None:
        return None
    return PoolHead(row["latest"], row["finalized"], row["age_seconds"], row["unchanged_seconds"], row["error"])


def is_open(stream: StreamRow) -> bool:
    """Return whether ranges of this stream remain to be planned."""
    if not (stream.enabled and stream.job_enabled) or stream.halted_reason or stream.old_form:
        return False
    return stream.to_block is None or stream.next_block < stream.to_block or stream.blocked_reason is not None


def _observation(database: Database, stream: StreamRow) -> Row | None:
    with database.transaction() as session:
        return session.one("observed_head", **pool_of(stream))


def pool_of(stream: StreamRow) -> dict[str, object]:
    """Return the key of a stream's observation."""
    return {
        "org_id": stream.org_id,
        "chain_id": stream.chain_id,
        "rpc_pool": stream.rpc_pool,
        "finality_blocks": _finality_blocks(stream),
    }


def _pool_key(stream: StreamRow) -> tuple[UUID, int, str, int]:
    return stream.org_id, stream.chain_id, stream.rpc_pool, _finality_blocks(stream)


def _finality_blocks(stream: StreamRow) -> int:
    """Return the job's setting, or NOT_SET: jobs with another rule of finality observe the pool for themselves."""
    return NOT_SET if stream.job.finality_blocks is None else stream.job.finality_blocks


def _interval(stream: StreamRow) -> float:
    following = follow(stream.job)
    return float(following.head_poll_interval_seconds) if following else FIXED_TARGET_POLL_SECONDS
