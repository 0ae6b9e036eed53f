"""The tip of each followed chain: its heads, how far the hot rows lag, who follows it, and its last reorganisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from trace_dagster.datasets.catalogue import HOT_DATASETS, NATIVE_LACKS, can_be_hot
from trace_dagster.datasets.chains import chain_of
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.connection import Database, Row
from trace_dagster.registry.jobs import follow
from trace_dagster.registry.streams import StreamRow

_SILENT_SECONDS = 20.0
"""A chain that no follower looked at for so long is followed by nobody; the sensor looks every few seconds."""


@dataclass(frozen=True, slots=True)
class LastReorg:
    """The newest reorganisation of a chain."""

    fork_block: int
    """The first block that is another one since."""
    depth: int
    """Blocks that were removed."""
    versions: int
    """Committed ranges that left the view."""
    age_seconds: float
    """Time since the follower found it."""


@dataclass(frozen=True, slots=True)
class ChainTip:
    """The tip of one chain. Block numbers are None before the follower stored or saw one."""

    chain_id: int
    is_wanted: bool
    """Whether a job that is not paused has streams that the follower stores."""
    head: int | None
    """The newest stored block."""
    head_label: str
    """The chain's own word for its newest block: latest, proposed."""
    head_hash: str | None
    safe: int | None
    finalized: int | None
    lag_blocks: int | None
    """Blocks that the chain's nodes have shown (at most every few seconds) and that are not stored."""
    lag_seconds: float | None
    """Age of the newest stored block, by its own timestamp and the database's clock."""
    stored_seconds: float | None
    """Time since the newest stored block was stored."""
    asked_seconds: float | None
    """Time since a follower last looked for new heads."""
    hot_blocks: int
    """Blocks that are hot for at least one stream."""
    followed_by: str | None
    """Holder of the lease; None if nobody follows the chain now."""
    reason: str | None
    """Why the follower does not go on; None if it does."""
    last_reorg: LastReorg | None

    def stopped_line(self) -> str | None:
        """Return why no new block is stored, and what to do; None while a follower works or none has to."""
        if not self.is_wanted:
            return None
        if self.reason is not None:
            return self.reason
        asked = self.asked_seconds
        if self.followed_by is not None or (asked is not None and asked < _SILENT_SECONDS):
            return None
        since = "" if asked is None else f" for {asked:.0f} s"
        return f"nobody has followed this chain{since}: start `trace-lite follow`, or the sensor trace_tip"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StreamTip:
    """The hot blocks of one stream, and the tip of its chain."""

    stream: StreamRow
    chain: ChainTip
    hot_blocks: int
    first: int | None
    """The lowest hot block."""
    last: int | None
    """The highest hot block."""

    @property
    def is_stopped(self) -> bool:
        """Whether the follower does not go on with the stream until a reason is removed."""
        return (self.chain.reason or self.stream.halted_reason) is not None

    @property
    def max_age_seconds(self) -> int:
        """Age of the newest stored block from which on it is too old."""
        following = follow(self.stream.job)
        return following.max_head_age_seconds if following else 0

    def trouble(self) -> str | None:
        """Return why the tip needs attention: it stands still, or its newest block is too old. None if it is well."""
        if (stopped := self.chain.stopped_line() or self.stream.halted_reason) is not None:
            return stopped
        ages = [age for age in (self.chain.lag_seconds, self.chain.stored_seconds) if age is not None]
        if self.chain.head is None:
            return "no block is stored yet"
        if not ages or min(ages) <= self.max_age_seconds:
            return None
        return f"no new block for {min(ages):.0f} s (max_head_age_seconds is {self.max_age_seconds})"

    def sentence(self) -> str:
        """Return the tip as a sentence for people."""
        if self.chain.head is None:
            return "no block is stored yet"
        behind = "" if self.chain.lag_blocks is None else f", {self.chain.lag_blocks:,} blocks behind"
        return f"block {self.chain.head:,} is the newest{behind}; {self.hot_blocks:,} blocks are hot"


def chain_tips(database: Database, org_id: UUID = DEFAULT_ORG) -> list[ChainTip]:
    """Return the tip of every chain that an enabled job follows or that was followed before, by chain id."""
    with database.snapshot() as session:
        lacking = [column for columns in NATIVE_LACKS.values() for column in columns]
        rows = session.all("chain_tips", org_id=org_id, sources=list(HOT_DATASETS), lacking=lacking)
    return [_chain_tip(row) for row in rows]


def stream_tips(database: Database, streams: Sequence[StreamRow]) -> list[StreamTip]:
    """Return the tip of each of these streams that follows the head with hot rows."""
    hot = [stream for stream in streams if has_tip(stream)]
    if not hot:
        return []
    owners = {stream.org_id for stream in hot}
    chains = {(owner, tip.chain_id): tip for owner in owners for tip in chain_tips(database, owner)}
    with database.snapshot() as session:
        rows = session.all("hot_counts", dataset_uuids=[stream.dataset_uuid for stream in hot])
    counts = {row["dataset_uuid"]: row for row in rows}
    return [
        _stream_tip(stream, tip, counts.get(stream.dataset_uuid))
        for stream in hot
        if (tip := chains.get((stream.org_id, stream.chain_id))) is not None
    ]


def has_tip(stream: StreamRow) -> bool:
    """Return whether a stream's newest blocks are hot rows: it follows the head, and the decoder gives its columns."""
    return follow(stream.job) is not None and can_be_hot(stream.dataset.name, stream.columns)


def _chain_tip(row: Row) -> ChainTip:
    head, shown = row["head"], row["shown"]
    return ChainTip(
        chain_id=row["chain_id"],
        is_wanted=row["is_wanted"],
        head=head,
        head_label=chain_of(row["chain_id"]).head_label("latest"),
        head_hash=f"0x{row['head_hash'].hex()}" if row["head_hash"] else None,
        safe=row["safe"],
        finalized=row["finalized"],
        lag_blocks=max(0, shown - head) if head is not None and shown is not None else None,
        lag_seconds=_rounded(row["head_age_seconds"]),
        stored_seconds=_rounded(row["stored_age_seconds"]),
        asked_seconds=_rounded(row["asked_age_seconds"]),
        hot_blocks=row["hot_blocks"],
        followed_by=row["holder"],
        reason=row["reason"],
        last_reorg=_last_reorg(row),
    )


def _last_reorg(row: Row) -> LastReorg | None:
    if row["fork_block"] is None:
        return None
    return LastReorg(row["fork_block"], row["depth"], row["versions"], round(row["reorg_age_seconds"], 1))


def _stream_tip(stream: StreamRow, chain: ChainTip, counts: Row | None) -> StreamTip:
    found = counts or {"blocks": 0, "first": None, "last": None}
    return StreamTip(stream, chain, found["blocks"], found["first"], found["last"])


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
