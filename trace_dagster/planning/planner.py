"""The planner inserts the tasks of ranges. Task, wake-up and cursor of a stream change in one transaction.

Every tick is bounded and idempotent. Any number of planners may run at once; one of them works on a stream at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from uuid import UUID

from trace_dagster.blocks import BlockRange, cells, holes
from trace_dagster.config.chain_sync import FollowHead
from trace_dagster.errors import TraceError
from trace_dagster.identity import task_id
from trace_dagster.messages.logs import component_log
from trace_dagster.planning.heads import Head, is_open, observed, pool_of
from trace_dagster.registry.connection import Database, Session, storable
from trace_dagster.registry.jobs import Jobs, follow
from trace_dagster.registry.streams import StreamRow, StreamSpec, stream_row
from trace_dagster.registry.wake import wake

QUEUED_AHEAD_PER_STREAM = 2048
"""Most tasks per stream that are planned ahead: enough for full runs, few enough for a tick of a second."""

_log = component_log("planning")


class Planner:
    """Inserts tasks up to the eligible end of every stream."""

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._database = database
        self._jobs = jobs

    def plan(self) -> int:
        """Plan every enabled stream; an error of one stream does not stop the others. Return how many ranges
        are new.
        """
        return sum(self._plan_or_block(stream) for stream in self._jobs.streams() if is_open(stream))

    def _plan_or_block(self, stream: StreamRow) -> int:
        try:
            return self._plan_stream(stream.dataset_uuid)
        except TraceError as error:
            self._block(stream, error.message)
        except Exception as error:  # a bug that one stream's values trigger must not stop the other streams
            _log.warning(
                "planning_failed",
                job=stream.job_name,
                dataset_key=stream.dataset_key,
                reason=f"{type(error).__name__}: {error}",
            )
            self._block(stream, f"planning failed with an unexpected {type(error).__name__}: see the log")
        return 0

    def _plan_stream(self, dataset: UUID) -> int:
        with self._database.transaction() as session:
            lock = session.one("try_lock_plan", dataset_uuid=dataset)
            row = session.one("planned_stream", dataset_uuid=dataset)
            if not lock or not lock["locked"] or row is None:
                return 0
            stream = stream_row(row)  # read under the lock, because an apply may have moved it since it was listed
            seen = session.one("observed_head", **pool_of(stream))
            head = observed(seen)
            blocked = blocked_reason(stream, head, seen["error"] if seen else None)
            if head is None or blocked:
                session.run("block_stream", dataset_uuid=dataset, reason=blocked)
                _log_reason(stream, blocked)
                return 0
            end = eligible_end(stream, head)
            planned, cursor = _top_up(session, stream, end)
            waiting = waiting_reason(stream, head, end)
            session.run(
                "advance_stream", dataset_uuid=dataset, next_block=cursor, eligible_end=end, blocked_reason=waiting
            )
        _log_reason(stream, waiting)
        if planned:
            _log.event(
                "planned",
                job=stream.job_name,
                dataset_key=stream.dataset_key,
                ranges=planned,
                next_block=cursor,
                eligible_end=end,
            )
        return planned

    def _block(self, stream: StreamRow, reason: str) -> None:
        with self._database.transaction() as session:
            session.run("block_stream", dataset_uuid=stream.dataset_uuid, reason=storable(reason))
        _log_reason(stream, reason)


def _log_reason(stream: StreamRow, reason: str | None) -> None:
    """Log when a stream becomes blocked or unblocked.

    ``stream`` holds the reason from before this plan; ``reason`` is the new one, None if the stream is not blocked.
    """
    if (reason is None) != (stream.blocked_reason is None):
        event = "stream_unblocked" if reason is None else "stream_blocked"
        _log.event(event, job=stream.job_name, dataset_key=stream.dataset_key, reason=reason)


def eligible_end(stream: StreamRow, head: Head) -> int:
    """Return the end of the blocks that may be planned: wanted, lagged, and final."""
    following = follow(stream.job)
    if following is None:
        return min(stream.to_block or 0, head.finalized + 1)
    return followed_end(following, stream.from_block, head.latest, head.finalized)


def followed_end(following: FollowHead, from_block: int, latest: int, finalized: int) -> int:
    """Return how far a job that follows the head may go when the chain shows these two blocks."""
    return max(from_block, min(latest + 1 - following.tail_lag, finalized + 1))


def blocked_reason(stream: StreamRow, head: Head | None, error: str | None) -> str | None:
    """Return why no range may be planned now: the head is missing, or stale if the job follows it. Otherwise None."""
    if head is None:
        return error or f"rpc pool {stream.rpc_pool} has not shown its head yet"
    following = follow(stream.job)
    if following is None or head.age_seconds <= following.max_head_age_seconds:
        return None
    stale = (
        f"the head of rpc pool {stream.rpc_pool} is {head.age_seconds:.0f} s old"
        f" (max_head_age_seconds is {following.max_head_age_seconds})"
    )
    return f"{stale}: {head.error}" if head.error else stale


def waiting_reason(stream: StreamRow, head: Head, end: int) -> str | None:
    """Return the reason why a stream that has blocks left to plan is blocked, or None if it is not."""
    if stream.to_block is not None and end < stream.to_block:
        return f"waiting for block {stream.to_block - 1}: the chain is final up to block {head.finalized}"
    following = follow(stream.job)
    if following is not None and head.unchanged_seconds > following.max_head_age_seconds:
        return f"rpc pool {stream.rpc_pool} has shown block {head.finalized} for {head.unchanged_seconds:.0f} s"
    return None


def _top_up(session: Session, stream: StreamRow, end: int) -> tuple[int, int]:
    """Insert tasks from the cursor on, as far as the look-ahead allows; return how many, and the new cursor."""
    queued = session.one("queued_count", dataset_uuid=stream.dataset_uuid)
    room = QUEUED_AHEAD_PER_STREAM - int(queued["queued"] if queued else 0)
    if stream.next_block >= end or room <= 0:
        return 0, stream.next_block
    wanted = BlockRange(stream.next_block, end)
    planned, cursor = next_cells(stream, wanted, taken_ranges(session, stream, wanted), room)
    _insert(session, stream, planned)
    return len(planned), cursor


def _insert(session: Session, stream: StreamRow, planned: list[BlockRange]) -> None:
    tasks: list[dict[str, Any]] = [
        {
            "task_id": task_id(stream.job_id, stream.dataset_key, piece),
            "dataset_uuid": stream.dataset_uuid,
            "range_start": piece.start,
            "range_end": piece.end,
            "config_hash": stream.config_hash,
        }
        for piece in planned
    ]
    session.many("insert_task", tasks)
    wake(session, [task["task_id"] for task in tasks])


def taken_ranges(session: Session, stream: StreamRow, wanted: BlockRange) -> list[BlockRange]:
    """Return the blocks with an active task that touches ``wanted``, as few ranges."""
    rows = session.all(
        "active_ranges", dataset_uuid=stream.dataset_uuid, range_start=wanted.start, range_end=wanted.end
    )
    return [BlockRange(row["range_start"], row["range_end"]) for row in rows]


def next_cells(
    stream: StreamSpec, wanted: BlockRange, taken: Iterable[BlockRange], room: int
) -> tuple[list[BlockRange], int]:
    """Return the first ``room`` cells of ``wanted`` that no ``taken`` range touches, and the cursor behind them.

    The cursor is the first cell that is left, or the end of the last full cell if none is.
    """
    found = list(islice(_plannable(stream, wanted, taken), room + 1))
    return found[:room], found[room].start if len(found) > room else full_end(stream, wanted)


def _plannable(stream: StreamSpec, wanted: BlockRange, taken: Iterable[BlockRange]) -> Iterator[BlockRange]:
    last = full_end(stream, wanted)
    for gap in holes(wanted, taken):
        for cell in cells(gap, stream.chunk_size):
            if cell.end <= last:
                yield cell


def full_end(stream: StreamSpec, wanted: BlockRange) -> int:
    """Return the end of the last full cell. A cell that the tip cuts short is planned when it is full."""
    end = wanted.end
    if stream.to_block is not None and end >= stream.to_block:
        return end
    return max(wanted.start, end // stream.chunk_size * stream.chunk_size)
