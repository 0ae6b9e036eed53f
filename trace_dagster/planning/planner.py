"""The planner inserts the tasks of ranges. Task, wake-up and cursor of a stream change in one transaction.

Every tick is bounded and idempotent. Any number of planners may run at once; one of them works on a stream at a time.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.config.chain_sync import FollowHead
from trace_dagster.errors import TraceError
from trace_dagster.identity import task_id
from trace_dagster.messages.logs import component_log
from trace_dagster.planning.cold import due_cold_end, hot_blocks
from trace_dagster.planning.heads import PoolHead, is_open, observed, pool_of
from trace_dagster.planning.next_ranges import Choice, HotBlocks, Planned, Room, next_ranges, open_end
from trace_dagster.registry.connection import Database, Session, storable
from trace_dagster.registry.jobs import Jobs, follow
from trace_dagster.registry.streams import StreamRow, stream_row
from trace_dagster.registry.wake import wake

QUEUED_AHEAD_PER_STREAM = 2048
"""Most tasks per stream that are planned ahead: enough for full runs, few enough for a tick of a second."""

TIP_RANGES_PER_TICK = 64
"""Ranges at the chain's tip that a tick plans also when the history that is planned ahead fills the queue."""

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
            choice, cold_end = choose(session, stream, end)
            _insert(session, stream, choice.ranges)
            waiting = waiting_reason(stream, head, end)
            session.run(
                "advance_stream",
                dataset_uuid=dataset,
                planned_from=choice.planned.start,
                next_block=choice.planned.end,
                eligible_end=end,
                cold_end=cold_end,
                blocked_reason=waiting,
            )
        _log_reason(stream, waiting)
        if choice.ranges:
            _log.event(
                "planned",
                job=stream.job_name,
                dataset_key=stream.dataset_key,
                ranges=len(choice.ranges),
                next_block=choice.planned.end,
                eligible_end=end,
            )
        return len(choice.ranges)

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


def eligible_end(stream: StreamRow, head: PoolHead) -> int:
    """Return the end of the blocks that may be planned: wanted, lagged, and final."""
    following = follow(stream.job)
    if following is None:
        return min(stream.to_block or 0, head.finalized + 1)
    return followed_end(following, stream.from_block, head.latest, head.finalized)


def followed_end(following: FollowHead, from_block: int, latest: int, finalized: int) -> int:
    """Return how far a job that follows the head may go when the chain shows these two blocks."""
    return max(from_block, min(latest + 1 - following.tail_lag, finalized + 1))


def blocked_reason(stream: StreamRow, head: PoolHead | None, error: str | None) -> str | None:
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


def waiting_reason(stream: StreamRow, head: PoolHead, end: int) -> str | None:
    """Return the reason why a stream that has blocks left to plan is blocked, or None if it is not."""
    if stream.to_block is not None and end < stream.to_block:
        return f"waiting for block {stream.to_block - 1}: the chain is final up to block {head.finalized}"
    following = follow(stream.job)
    if following is not None and head.unchanged_seconds > following.max_head_age_seconds:
        return f"rpc pool {stream.rpc_pool} has shown block {head.finalized} for {head.unchanged_seconds:.0f} s"
    return None


def choose(session: Session, stream: StreamRow, end: int) -> tuple[Choice, int]:
    """Choose the ranges to plan below the eligible end, and how far hot ranges are planned. Changes nothing."""
    following = follow(stream.job)
    hot = hot_blocks(session, stream, following)
    known = Planned(stream.planned_from, stream.next_block)
    room = _room(session, stream, hot)
    last = open_end(stream, end, following.max_cold_lag if following else None, _in_open_cell(session, stream, end))
    taken = [found for span in _unknown(stream, known, room, last) for found in taken_ranges(session, stream, span)]

    def choice(cold_end: int) -> Choice:
        return next_ranges(
            stream,
            last,
            known,
            taken,
            room,
            newest_first=stream.newest_first,
            is_held=lambda piece: piece.end > cold_end and hot.hold(piece),
        )

    found = choice(stream.cold_end)
    if following is None:
        return found, stream.cold_end
    cold_end = due_cold_end(following, stream.chunk_size, stream.cold_end, end, found.held)
    return (found if cold_end == stream.cold_end else choice(cold_end)), cold_end


def _room(session: Session, stream: StreamRow, hot: HotBlocks) -> Room:
    """Return how many ranges may be planned ahead. The tip has a share of its own: history never fills it."""
    counted = session.one("queued_count", dataset_uuid=stream.dataset_uuid)
    queued = int(counted["queued"]) if counted else 0
    history = max(0, QUEUED_AHEAD_PER_STREAM - queued)
    at_the_tip = max(0, min(TIP_RANGES_PER_TICK, 2 * QUEUED_AHEAD_PER_STREAM - queued))
    if hot.ranges:
        tip_start = hot.ranges[-1].start // stream.chunk_size * stream.chunk_size
    else:
        tip_start = stream.next_block if stream.newest_first and stream.planned else MAX_BLOCK - 1
    return Room(history, history + at_the_tip, tip_start)


def _unknown(stream: StreamRow, known: Planned, room: Room, end: int) -> list[BlockRange]:
    """Return the blocks whose tasks must be read: those that are not known to be planned and may be chosen now."""
    below = (stream.from_block, known.start) if room.history else (0, 0)
    above = (known.end if stream.newest_first or room.history else max(known.end, room.tip_start), end)
    return [BlockRange(start, stop) for start, stop in (below, above) if start < stop]


def _in_open_cell(session: Session, stream: StreamRow, end: int) -> list[BlockRange]:
    """Return the ranges with a task in the cell that the eligible end cuts, if the job may cut it."""
    following = follow(stream.job)
    start = end // stream.chunk_size * stream.chunk_size
    if following is None or following.max_cold_lag is None:
        return []
    return taken_ranges(session, stream, BlockRange(start, start + stream.chunk_size))


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
