"""When blocks whose rows are hot are planned to be committed: by number, by cron, by hand, or once they lag too far.

Rows that are hot are visible, so nobody waits for their commit. The planner holds a range back as long as all of its
rows are hot and it ends above the stream's ``cold_end``, which only grows. Everything else is planned when it is final:
a follower that stands still stops no commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import FollowHead
from trace_dagster.planning.next_ranges import HotBlocks
from trace_dagster.registry.connection import Database, Session
from trace_dagster.registry.streams import StreamRow


@dataclass(frozen=True, slots=True)
class Raised:
    """How far a stream's hot blocks are planned now, and how many hot blocks have become plannable by that."""

    dataset_uuid: UUID
    cold_end: int
    blocks: int


def hot_blocks(session: Session, stream: StreamRow, following: FollowHead | None) -> HotBlocks:
    """Return the hot blocks of a stream, none if it does not follow the head or its columns were changed."""
    if following is None:
        return HotBlocks((), followed=False)
    rows = session.all("hot_ranges", dataset_uuid=stream.dataset_uuid, patience_seconds=following.max_head_age_seconds)
    ranges = tuple(BlockRange(row["range_start"], row["range_end"]) for row in rows)
    return HotBlocks(ranges, followed=any(row["followed"] for row in rows))


def due_cold_end(
    following: FollowHead, chunk_size: int, cold_end: int, eligible_end: int, held: Sequence[BlockRange]
) -> int:
    """Return up to which block hot ranges are planned. ``held`` are final ranges that are held back until now.

    They are due when as many blocks as ``cold_after_blocks`` are final from the first of them on, unless the job has a
    cron; in any case when these are as many as ``max_cold_lag``.
    """
    if not held:
        return cold_end
    waiting = eligible_end - min(piece.start for piece in held)
    limits = [following.max_cold_lag] if following.max_cold_lag else []
    if following.cold_cron is None:
        limits.append(following.cold_after_blocks or chunk_size)
    if any(waiting >= limit for limit in limits):
        return max(cold_end, *(piece.end for piece in held))
    return cold_end


def raise_cold_end(database: Database, streams: Sequence[StreamRow]) -> list[Raised]:
    """Make the planner plan all final whole cells of these streams, also those whose rows are hot."""
    wanted = [stream.dataset_uuid for stream in streams]
    with database.transaction() as session:
        rows = session.all("raise_cold_end", dataset_uuids=wanted)
    return [Raised(row["dataset_uuid"], row["cold_end"], row["blocks"]) for row in rows]
