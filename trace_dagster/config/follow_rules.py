"""Rules about the keys of follow_head that need the whole file: whether hot blocks and ranges fit its streams.

They hold for files, not for jobs that were applied before: those still run when a rule is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trace_dagster.datasets.chain import DEFAULT_FINALITY_BLOCKS
from trace_dagster.datasets.chains import chain_of

if TYPE_CHECKING:
    from trace_dagster.config.chain_sync import ChainSync, FollowHead, Stream

LEAST_BLOCKS = 10
"""The shortest range of a job that follows the head. Shorter ones would become tiny files for as long as it runs."""

Broken = tuple[tuple[str, ...], str]
"""The path of a key, and what is wrong with its value."""


def broken_rules(job: ChainSync, following: FollowHead) -> Iterator[Broken]:
    """Yield the keys of a job that follows the head whose values cannot work."""
    for key, stream in job.streams.items():
        yield from _too_short(following, key, stream)
        if stream.can_be_hot:
            yield from _too_large(job, following, key, stream)
    lag = following.max_cold_lag
    if lag and not any(_has_effect(lag, following, stream) for stream in job.streams.values()):
        largest = max(stream.chunk_size for stream in job.streams.values())
        yield ("mode", "max_cold_lag"), f"has no effect: it must be at most half of a chunk_size (largest: {largest})"


def _too_short(following: FollowHead, key: str, stream: Stream) -> Iterator[Broken]:
    """Yield why ranges would have only a few blocks, each of them or the first one."""
    size, start = stream.chunk_size, following.from_block
    if size < LEAST_BLOCKS:
        yield ("streams", key, "chunk_size"), f"must be at least {LEAST_BLOCKS} in a job that follows the head"
    elif isinstance(start, int) and (blocks := _first_range(start, size)) < LEAST_BLOCKS:
        border = start + blocks
        yield (
            ("mode", "from_block"),
            f"the first range [{start}, {border}) at chunk_size {size} would have fewer than {LEAST_BLOCKS} blocks:"
            f" write {border - LEAST_BLOCKS} or {border}",
        )


def _first_range(start: int, chunk_size: int) -> int:
    """Return how many blocks the first range has."""
    return chunk_size - start % chunk_size


def _too_large(job: ChainSync, following: FollowHead, key: str, stream: Stream) -> Iterator[Broken]:
    """Yield why the hot blocks would reach hot_max_blocks before any of them is due to be committed."""
    waiting = max(stream.chunk_size, following.cold_after_blocks or 0)
    depth = max(_depth(job), following.tail_lag)
    if waiting + depth <= following.hot_max_blocks:
        return
    above = f" and {depth} above them that are not final" if depth else ""
    is_threshold = waiting > stream.chunk_size
    yield (
        ("mode", "cold_after_blocks") if is_threshold else ("streams", key, "chunk_size"),
        f"{waiting} blocks{above} do not fit into hot_max_blocks ({following.hot_max_blocks}): the follower would stop",
    )


def _depth(job: ChainSync) -> int:
    """Return how many blocks are known not to be final, 0 if only the chain's nodes know it."""
    if job.finality_blocks is not None:
        return job.finality_blocks
    depth = chain_of(job.chain_id).finality_blocks
    return 0 if depth == DEFAULT_FINALITY_BLOCKS else depth


def _has_effect(lag: int, following: FollowHead, stream: Stream) -> bool:
    """Return whether a lag cuts a cell of the stream, or starts commits before cron or threshold do."""
    rare = following.cold_cron is not None or (following.cold_after_blocks or 0) > lag
    return 2 * lag <= stream.chunk_size or (rare and stream.can_be_hot)
