"""How fast streams grow now, and how long the rest takes at that rate."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from trace_dagster.registry.connection import Session
from trace_dagster.registry.streams import StreamRow

RECENT_COMMITS = 200
RECENT_SECONDS = 3600.0
"""The rate is that of a stream's last RECENT_COMMITS commits, none older than this."""


def recent_rates(session: Session, datasets: Sequence[UUID]) -> dict[UUID, float]:
    """Return blocks per second of the datasets that grew lately: the blocks of their recent commits, divided by the
    time since the first of these was started.

    One commit is enough, and the rate of a stream that stopped falls until it is gone.
    """
    rows = session.all("recent_commits", dataset_uuids=list(datasets), commits=RECENT_COMMITS, seconds=RECENT_SECONDS)
    return {row["dataset_uuid"]: row["blocks"] / row["seconds"] for row in rows if row["seconds"] > 0}


def target_blocks(stream: StreamRow) -> int | None:
    """Return the blocks to commit: all of a fixed target, or the full cells that a followed chain has now.

    None if the head of a followed chain was not observed yet.
    """
    if stream.to_block is not None:
        return stream.to_block - stream.from_block
    if stream.eligible_end is None:
        return None
    return max(0, stream.eligible_end // stream.chunk_size * stream.chunk_size - stream.from_block)


def seconds_left(stream: StreamRow, committed_blocks: int, rate: float | None) -> float | None:
    """Return the seconds until every wanted block is committed, 0 if all are.

    None if they cannot be estimated: no recent commit, a paused or halted stream, or one that waits for its chain.
    """
    wanted = target_blocks(stream)
    stopped = not (stream.enabled and stream.job_enabled) or stream.halted_reason or stream.blocked_reason
    if wanted is None or stopped:
        return None
    left = max(0, wanted - committed_blocks)
    if not left:
        return 0.0
    return left / rate if rate else None
