"""How fast streams grow now, and how long what is left of them takes at that rate."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from trace_dagster.registry.connection import Session
from trace_dagster.registry.streams import StreamRow

RECENT_COMMITS = 200
RECENT_SECONDS = 3600.0
"""The rate is that of a stream's last RECENT_COMMITS commits, none older than this."""


def recent_rates(session: Session, datasets: Sequence[UUID]) -> dict[UUID, float]:
    """Blocks per second of the datasets that grew lately: what their recent commits hold, by the time since the first
    of these was begun. So one commit is enough, and the rate of a stream that stands still falls until it is gone.
    """
    rows = session.all("recent_commits", dataset_uuids=list(datasets), commits=RECENT_COMMITS, seconds=RECENT_SECONDS)
    return {row["dataset_uuid"]: row["blocks"] / row["seconds"] for row in rows if row["seconds"] > 0}


def wanted_blocks(stream: StreamRow) -> int | None:
    """Blocks to commit: all of a fixed target; the full cells the chain has now where its head is followed.

    None while the head of a followed chain was not seen yet.
    """
    if stream.to_block is not None:
        return stream.to_block - stream.from_block
    if stream.eligible_end is None:
        return None
    return max(0, stream.eligible_end // stream.chunk_size * stream.chunk_size - stream.from_block)


def seconds_left(stream: StreamRow, committed_blocks: int, rate: float | None) -> float | None:
    """Seconds until every wanted block is committed, 0 when all are.

    None when nothing tells: no recent commit, a paused or halted stream, one that waits for its chain.
    """
    wanted = wanted_blocks(stream)
    stopped = not (stream.enabled and stream.job_enabled) or stream.halted_reason or stream.blocked_reason
    if wanted is None or stopped:
        return None
    left = max(0, wanted - committed_blocks)
    if not left:
        return 0.0
    return left / rate if rate else None
