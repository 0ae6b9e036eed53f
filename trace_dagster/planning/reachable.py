"""What ``verify`` means for each stream of a job on its chain, said before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from trace_dagster.config.chain_sync import ChainSync, Stream
from trace_dagster.datasets.chain import Chain
from trace_dagster.datasets.chains import chain_of
from trace_dagster.datasets.levels import VerifiedAsAsked
from trace_dagster.datasets.reach import Reach, reach
from trace_dagster.registry.jobs import Bounds, stream_start
from trace_dagster.rpc.pools import variable_of


def stream_reach(job: ChainSync, stream: Stream, bounds: Bounds) -> Reach:
    """Return what ``verify: full`` means for the blocks of a stream."""
    return reach(chain_of(job.chain_id), stream.dataset, stream_start(job, stream, bounds), bounds.to_block)


def job_lines(job: ChainSync, bounds: Bounds, quorum: Callable[[str], int]) -> Iterator[str]:
    """Yield what a person reads before the job runs: its chain, each stream's level, and what a quorum would add.

    ``quorum`` returns the quorum of a pool by name.
    """
    streams = [(key, stream, stream_reach(job, stream, bounds)) for key, stream in job.streams.items()]
    yield from chain_lines(chain_of(job.chain_id))
    for key, stream, found in streams:
        yield f"{key}: {stream_line(stream, found)}"
    yield from quorum_lines(streams, quorum)


def chain_lines(chain: Chain) -> Iterator[str]:
    """Yield what forms that nobody knows do to the rows of an unlisted chain; nothing for a chain of the table."""
    if not chain.is_listed:
        yield (
            f"{chain.name} is not in the table of chains: standard forms are proven, unknown forms lower their rows"
            " once every endpoint of the pool has shown them"
        )


def stream_line(stream: VerifiedAsAsked, found: Reach) -> str:
    """Return the level that the rows of a stream reach, with the blocks that stay below it."""
    if not stream.is_proven:
        return {"off": "off (nothing is checked)"}.get(stream.verify, "structural (as its verify asks)")
    stops = "; `verify: require_full` stops the stream there" if stream.requires_full and found.is_lowered else ""
    return f"{found}{stops}"


def quorum_lines(streams: Iterable[tuple[str, Stream, Reach]], quorum: Callable[[str], int]) -> Iterator[str]:
    """Yield one line per pool whose streams reach nothing of the chain, unless its endpoints must agree already."""
    bare: dict[str, list[str]] = {}
    for key, stream, found in streams:
        if stream.is_proven and found.level == "structural":
            bare.setdefault(stream.rpc_pool, []).append(key)
    for pool, keys in bare.items():
        if quorum(pool) == 1:
            yield (
                f"no commitment of the chain is in reach of {', '.join(keys)}: a quorum of endpoints is the honest"
                f" level there: set {variable_of(pool, 'QUORUM')}=2 or more"
            )
