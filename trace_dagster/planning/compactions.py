"""The Dagster jobs and runs that compact windows. Which windows are due, compaction/due.py says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.planning.run_groups import sharing
from trace_dagster.registry.streams import StreamRow

WINDOWS_PER_RUN = 16
_PREFIX = "compact__"


@dataclass(frozen=True, slots=True)
class CompactionGroup:
    """Streams of one job whose windows have the same size, and the Dagster job that compacts them."""

    name: str
    partitions_name: str
    streams: tuple[StreamRow, ...]


@dataclass(frozen=True, slots=True)
class CompactionRun:
    """Neighbouring windows that one Dagster run compacts, and the streams for which each of them is due."""

    group: CompactionGroup
    windows: tuple[BlockRange, ...]
    dataset_keys: tuple[str, ...]


def compaction_groups(streams: Iterable[StreamRow]) -> Iterator[CompactionGroup]:
    """Yield the groups of every job: ``compact__{job}`` for its main size of windows, and one for each other stream."""
    enabled = sorted((s for s in streams if s.enabled and s.compact), key=lambda s: (s.job_name, s.dataset_key))
    for job_name, group in groupby(enabled, key=lambda stream: stream.job_name):
        members = {stream.dataset_key: stream for stream in group}
        main, *others = sharing({key: window_blocks(stream) for key, stream in members.items()})
        yield _group(f"{_PREFIX}{job_name}", [members[key] for key in main])
        for (key,) in others:
            yield _group(f"{_PREFIX}{job_name}__{key}", [members[key]])


def is_compaction(job_name: str) -> bool:
    """Return whether a Dagster job of this name is one of :func:`compaction_groups`."""
    return job_name.startswith(_PREFIX)


def window_blocks(stream: StreamRow) -> int:
    """Return the blocks of a window of a stream; 0 if its compaction is off."""
    return stream.compact.window_blocks(stream.chunk_size) if stream.compact else 0


def windows_name(stream: StreamRow) -> str:
    """Return the name of the partitions definition that a stream shares with its job's streams on the same windows."""
    return f"{stream.job_name}__{window_blocks(stream)}__windows"


def _group(name: str, streams: Sequence[StreamRow]) -> CompactionGroup:
    return CompactionGroup(name, windows_name(streams[0]), tuple(streams))


def next_run(
    group: CompactionGroup, due: Mapping[UUID, Sequence[BlockRange]], positions: Mapping[str, int]
) -> CompactionRun | None:
    """Return the run of the first windows that are due for the same streams; None if none is due.

    ``positions`` has the place of each key in Dagster's order: a run carries keys that follow each other.
    """
    wanted = {window: _streams_of(group, due, window) for windows in due.values() for window in windows}
    if not wanted:
        return None
    first, *others = sorted(wanted)
    windows = [first]
    for window in others[: WINDOWS_PER_RUN - 1]:
        follows = positions[window.key] == positions[windows[-1].key] + 1
        if not follows or wanted[window] != wanted[first]:
            break
        windows.append(window)
    return CompactionRun(group, tuple(windows), wanted[first])


def _streams_of(
    group: CompactionGroup, due: Mapping[UUID, Sequence[BlockRange]], window: BlockRange
) -> tuple[str, ...]:
    return tuple(stream.dataset_key for stream in group.streams if window in due.get(stream.dataset_uuid, ()))
