"""Run groups: the streams that can share a Dagster run. One group is one job on one grid of ranges."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from trace_dagster.registry.streams import StreamRow

_PREFIX = "chain_sync__"
_GRID = re.compile(r"[a-z][a-z0-9_]{0,63}__[1-9][0-9]*(?:__windows)?")


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Streams of one job with one chunk size, and the Dagster job that runs them together."""

    name: str
    partitions_name: str
    streams: tuple[StreamRow, ...]


def partitions_name(stream: StreamRow) -> str:
    """Return the name of the partitions definition that a stream shares with its job's streams on the same grid."""
    return f"{stream.job_name}__{stream.chunk_size}"


def is_grid(name: str) -> bool:
    """Return whether the keys of a partitions definition are block ranges: :func:`partitions_name`, or windows."""
    return _GRID.fullmatch(name) is not None


def is_run_group(job_name: str) -> bool:
    """Return whether a Dagster job of this name is one of :func:`all_run_groups`."""
    return job_name.startswith(_PREFIX)


def active_run_groups(streams: Sequence[StreamRow]) -> Iterator[RunGroup]:
    """Yield the run groups of jobs that are not paused."""
    return all_run_groups([stream for stream in streams if stream.job_enabled])


def all_run_groups(streams: Sequence[StreamRow]) -> Iterator[RunGroup]:
    """Yield every run group: ``chain_sync__{job}`` for a job's main grid, and one for each stream off that grid."""
    enabled = sorted((s for s in streams if s.enabled), key=lambda s: (s.job_name, s.dataset_key))
    for job_name, group in groupby(enabled, key=lambda stream: stream.job_name):
        members = {stream.dataset_key: stream for stream in group}
        main, *others = sharing({key: stream.chunk_size for key, stream in members.items()})
        on_grid = tuple(members[key] for key in main)
        yield RunGroup(f"{_PREFIX}{job_name}", partitions_name(on_grid[0]), on_grid)
        for (key,) in others:
            yield RunGroup(f"{_PREFIX}{job_name}__{key}", partitions_name(members[key]), (members[key],))


def sharing(chunk_sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Group the streams of one job, by dataset key: those on its main grid, then each other stream alone."""
    sizes = dict(sorted(chunk_sizes.items()))
    main = Counter(sizes.values()).most_common(1)[0][0]
    return [
        tuple(key for key, size in sizes.items() if size == main),
        *((key,) for key, size in sizes.items() if size != main),
    ]
