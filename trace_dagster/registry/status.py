"""Where every job stands, in plain values fit for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from trace_dagster.registry.connection import Database, Row
from trace_dagster.registry.jobs import Jobs, StreamRow


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream; counts are ranges, blocks or rows as named."""

    dataset_key: str
    dataset_uuid: str
    enabled: bool
    next_block: int
    eligible_end: int | None
    committed_ranges: int
    committed_blocks: int
    committed_rows: int
    committed_bytes: int
    inflight: int
    queued: int
    failed: int
    blocked_reason: str | None
    last_error: str | None
    verification: str
    total_blocks: int | None
    blocks_per_second: float | None

    @property
    def done(self) -> bool:
        """Every wanted block is committed."""
        return self.total_blocks is not None and self.committed_blocks >= self.total_blocks


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job and its streams."""

    name: str
    job_id: str
    chain_id: int
    mode: str
    enabled: bool
    state: str
    streams: tuple[StreamStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def job_statuses(database: Database, jobs: Jobs) -> list[JobStatus]:
    """Every job, by name."""
    found = []
    for _, group in groupby(jobs.streams(), key=lambda stream: stream.job_id):
        members = list(group)
        with database.snapshot() as session:
            counts = {row["dataset_uuid"]: row for row in session.all("stream_counts", job_id=members[0].job_id)}
        found.append(_job(members, [_stream(stream, counts[stream.dataset_uuid]) for stream in members]))
    return found


def failed_ranges(database: Database, jobs: Jobs, name: str, *, limit: int = 5) -> list[str]:
    """The first failed ranges of a job, each as one line with its reason."""
    job_id = next((stream.job_id for stream in jobs.streams() if stream.job_name == name), None)
    with database.snapshot() as session:
        rows = session.all("failed_tasks", job_id=job_id, limit=limit)
    return [f"{row['dataset_key']} [{row['range_start']}, {row['range_end']}): {row['error']}" for row in rows]


def _job(members: list[StreamRow], streams: list[StreamStatus]) -> JobStatus:
    first = members[0]
    return JobStatus(
        name=first.job_name,
        job_id=str(first.job_id),
        chain_id=first.chain_id,
        mode=first.mode,
        enabled=first.job_enabled,
        state=_state(first, [stream for stream in streams if stream.enabled]),
        streams=tuple(streams),
    )


def _state(first: StreamRow, streams: list[StreamStatus]) -> str:
    if not first.job_enabled:
        return "paused"
    if streams and all(stream.done for stream in streams):
        return "complete"
    if any(stream.failed for stream in streams):
        return "failed"
    if any(stream.inflight or stream.queued for stream in streams):
        return "running"
    if any(stream.blocked_reason for stream in streams):
        return "blocked"
    return "following" if first.mode == "follow_head" else "planning"


def _stream(stream: StreamRow, counts: Row) -> StreamStatus:
    seconds = counts["committing_seconds"]
    blocks = counts["committed_blocks"]
    return StreamStatus(
        dataset_key=stream.dataset_key,
        dataset_uuid=str(stream.dataset_uuid),
        enabled=stream.enabled,
        next_block=stream.next_block,
        eligible_end=stream.eligible_end,
        committed_ranges=counts["committed_ranges"],
        committed_blocks=blocks,
        committed_rows=counts["committed_rows"],
        committed_bytes=counts["committed_bytes"],
        inflight=counts["inflight"],
        queued=counts["queued"],
        failed=counts["failed"],
        blocked_reason=stream.blocked_reason,
        last_error=counts["last_error"],
        verification="structural" if stream.verify == "full" else stream.verify,
        total_blocks=stream.to_block - stream.from_block if stream.to_block is not None else None,
        blocks_per_second=round(blocks / seconds, 1) if seconds else None,
    )
