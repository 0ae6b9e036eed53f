"""The status of every job, in plain values fit for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

from trace_dagster.blocks import BlockRange, holes, merged
from trace_dagster.datasets.levels import reasons_line
from trace_dagster.registry.catalog import committed_ranges
from trace_dagster.registry.connection import Database, Row, Session
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.presence import NOTHING, Presence, presences
from trace_dagster.registry.progress import recent_rates, seconds_left
from trace_dagster.registry.streams import StreamRow


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The status of one stream. Counts are ranges, blocks or rows, as their names say."""

    dataset_key: str
    dataset_uuid: str
    enabled: bool
    next_block: int
    eligible_end: int | None
    committed_ranges: int
    """Ranges with visible rows, also while they are fetched again to be compared."""
    committed_blocks: int
    committed_rows: int
    committed_bytes: int
    inflight: int
    queued: int
    backing_off: int
    """Queued ranges that wait before their next try."""
    failed: int
    blocked_reason: str | None
    last_error: str | None
    verify: str
    """Level that the stream asks for: full, require_full, structural or off."""
    verified: dict[str, int]
    """Committed ranges by the lowest level of their blocks."""
    lowered_reasons: list[str]
    """Why blocks are below the level that the dataset reaches elsewhere: of the newest ranges with such blocks."""
    head_age_seconds: float | None
    """Time since the stream's pool last showed its head."""
    total_blocks: int | None
    blocks_per_second: float | None
    """Rate from the first commit to the last."""
    recent_blocks_per_second: float | None
    """Rate of the last commits; see :func:`~trace_dagster.registry.progress.recent_rates`."""
    seconds_left: float | None
    """Time at the recent rate until every wanted block is committed or the head is reached; None if it is unknown."""
    done: bool
    """True if every wanted block is committed."""
    hot_blocks: int
    """Blocks whose rows are hot: queries see them, and they are not committed."""
    missing_blocks: int
    """Blocks of a followed chain, below the newest that is there, that are neither committed nor hot."""
    missing: str | None
    """Which blocks these are, in words."""

    def lowered_line(self) -> str | None:
        """Return how many ranges reached which level, and why some are lower; None if the chain lowered none."""
        if not self.lowered_reasons:
            return None
        levels = ", ".join(f"{ranges:,} {level}" for level, ranges in sorted(self.verified.items(), key=_from_full))
        return f"{self.committed_ranges:,} ranges: {levels}: {reasons_line(self.lowered_reasons)}"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of one job and its streams."""

    name: str
    job_id: str
    chain_id: int
    mode: str
    enabled: bool
    state: str
    seconds_left: float | None
    """Time of the stream that takes longest; None if that of a stream is unknown."""
    streams: tuple[StreamStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def headline(self) -> dict[str, Any]:
        """Return the job without the details of its streams."""
        return {**asdict(self), "streams": [stream.dataset_key for stream in self.streams]}


def job_statuses(database: Database, jobs: Jobs) -> list[JobStatus]:
    """Return the status of every job, by name."""
    found = []
    for _, group in groupby(jobs.streams(), key=lambda stream: stream.job_id):
        members = list(group)
        with database.snapshot() as session:
            counts = {row["dataset_uuid"]: row for row in session.all("stream_counts", job_id=members[0].job_id)}
            rates = recent_rates(session, list(counts))
            present = presences(session, list(counts))
        streams = [
            _stream(each, counts[each.dataset_uuid], rates.get(each.dataset_uuid), present[each.dataset_uuid])
            for each in members
        ]
        found.append(_job(members, streams))
    return found


def failed_ranges(database: Database, jobs: Jobs, name: str, *, limit: int = 5) -> list[str]:
    """Return the first failed ranges of a job, each as one line with its reason."""
    job_id = next((stream.job_id for stream in jobs.streams() if stream.job_name == name), None)
    with database.snapshot() as session:
        rows = session.all("failed_tasks", job_id=job_id, limit=limit)
    return [f"{row['dataset_key']} [{row['range_start']}, {row['range_end']}): {row['error']}" for row in rows]


@dataclass(frozen=True, slots=True)
class StreamCoverage:
    """How much of a stream's plan is committed, and which blocks are in no task."""

    stream: StreamRow
    committed_blocks: int
    planned_blocks: int
    gaps: tuple[BlockRange, ...]
    """Blocks below the cursor that are neither committed nor in a task that may still commit them."""
    failed: tuple[tuple[BlockRange, str, str], ...]
    """``(block range, failed or dead, reason)``."""
    presence: Presence
    """Blocks that are hot, and history of a followed chain that is not there yet."""

    @property
    def passed(self) -> bool:
        """True if there is no gap."""
        return not self.gaps

    def sentence(self) -> str:
        """Return the coverage as a sentence for people."""
        committed = f"{self.committed_blocks:,} of {self.planned_blocks:,} planned blocks are committed"
        if self.presence.hot_blocks:
            committed += f", {self.presence.hot_blocks:,} more are hot"
        if history := self.presence.sentence():
            committed += f"; {history}"
        if not self.gaps:
            return committed
        if self.stream.old_form:
            return f"{committed}: {self.stream.old_form}"
        first = ", ".join(str(gap) for gap in self.gaps[:3])
        more = f" and {len(self.gaps) - 3:,} more gaps" if len(self.gaps) > 3 else ""
        retry = f"`trace-lite retry --job {self.stream.job_name}` when its cause is removed"
        return f"{committed}; no run works on {first}{more}: {retry}"

    def summary(self) -> list[object]:
        """Return the values whose change makes the coverage worth reporting again."""
        tenth = 10 * self.committed_blocks // max(1, self.planned_blocks)
        left = 10 * self.presence.missing_blocks // max(1, self.planned_blocks + self.presence.missing_blocks)
        gaps = [gap.key for gap in self.gaps[:10]]
        return [self.passed, tenth, self.planned_blocks if tenth == 10 else 0, gaps, left]


def stream_coverages(database: Database, jobs: Jobs) -> list[StreamCoverage]:
    """Return the coverage of every enabled stream that has a plan."""
    return [_coverage(database, stream) for stream in jobs.streams() if stream.enabled and stream.eligible_end]


def stream_coverage(database: Database, jobs: Jobs, dataset: UUID) -> StreamCoverage:
    """Return the coverage of one stream."""
    return next(_coverage(database, stream) for stream in jobs.streams() if stream.dataset_uuid == dataset)


def _from_full(counted: tuple[str, int]) -> int:
    """Sort key of ``(level, ranges)``, the highest level first."""
    order = ("full", "crosschecked", "structural", "off")
    return order.index(counted[0]) if counted[0] in order else len(order)


def _coverage(database: Database, stream: StreamRow) -> StreamCoverage:
    with database.snapshot() as session:
        committed = committed_ranges(session, stream.dataset_uuid)
        working = session.all("working_ranges", dataset_uuid=stream.dataset_uuid)
        failed = session.all("failed_ranges", dataset_uuid=stream.dataset_uuid, limit=100)
        present = _presence(session, stream)
    under_way = [BlockRange(row["range_start"], row["range_end"]) for row in working]
    planned = stream.planned
    known = merged([*committed, *under_way, *([planned] if planned else [])])
    return StreamCoverage(
        stream,
        committed_blocks=sum(len(block_range) for block_range in committed),
        planned_blocks=sum(len(block_range) for block_range in known),
        gaps=tuple(holes(planned, [*committed, *under_way])) if planned else (),
        presence=present,
        failed=tuple(
            (BlockRange(row["range_start"], row["range_end"]), row["state"], row["error"] or "") for row in failed
        ),
    )


def _presence(session: Session, stream: StreamRow) -> Presence:
    """Return which blocks of a stream are hot or missing; nothing for a fixed target, whose plan says it."""
    return NOTHING if stream.to_block is not None else presences(session, [stream.dataset_uuid])[stream.dataset_uuid]


def _job(members: list[StreamRow], streams: list[StreamStatus]) -> JobStatus:
    first = members[0]
    enabled = [stream for stream in streams if stream.enabled]
    left = [stream.seconds_left for stream in enabled]
    return JobStatus(
        name=first.job_name,
        job_id=str(first.job_id),
        chain_id=first.chain_id,
        mode=first.mode,
        enabled=first.job_enabled,
        state=_state(first, enabled),
        seconds_left=max((each for each in left if each is not None), default=None) if None not in left else None,
        streams=tuple(streams),
    )


def _state(first: StreamRow, streams: list[StreamStatus]) -> str:
    if not first.job_enabled:
        return "paused"
    if streams and all(stream.done for stream in streams):
        return "complete"
    if any(stream.inflight or stream.queued for stream in streams):
        return "running"
    if any(stream.failed for stream in streams):
        return "failed"
    if any(stream.blocked_reason for stream in streams):
        return "blocked"
    return "following" if first.mode == "follow_head" else "planning"


def _stream(stream: StreamRow, counts: Row, recent: float | None, presence: Presence) -> StreamStatus:
    seconds = counts["committing_seconds"]
    blocks = counts["committed_blocks"]
    rate = blocks / seconds if seconds else None
    total = stream.to_block - stream.from_block if stream.to_block is not None else None
    left = seconds_left(stream, blocks + presence.hot_full_blocks, recent)
    shown = presence if stream.to_block is None else NOTHING
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
        backing_off=counts["backing_off"],
        failed=counts["failed"],
        blocked_reason=stream.old_form or stream.halted_reason or stream.blocked_reason,
        last_error=counts["last_error"],
        verify=stream.verify,
        verified=dict(counts["verified"]),
        lowered_reasons=list(counts["lowered_reasons"]),
        head_age_seconds=round(counts["head_age_seconds"], 1) if counts["head_age_seconds"] is not None else None,
        total_blocks=total,
        blocks_per_second=round(rate, 1) if rate else None,
        recent_blocks_per_second=round(recent, 3) if recent else None,
        seconds_left=round(left, 1) if left is not None else None,
        done=total is not None and blocks >= total,
        hot_blocks=shown.hot_blocks,
        missing_blocks=shown.missing_blocks,
        missing=shown.sentence(),
    )
