"""The functions behind ``compact``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trace_dagster.blocks import BlockRange
from trace_dagster.cli.commands import opened
from trace_dagster.compaction.plan import output_files
from trace_dagster.compaction.windows import named_window, require_compaction
from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput, TraceError
from trace_dagster.registry.layouts import WindowState
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

if TYPE_CHECKING:
    from trace_dagster.compaction.compactor import CompactionResult

Progress = Callable[[int], Callable[[], None]]
"""Takes the number of ranges; returns the function to call after each."""

LEFT = frozenset({"held", "over_budget", "not_due"})
"""Outcomes after which a window that is due stays as it is."""

_MOST_WINDOWS = 100_000


@dataclass(frozen=True, slots=True)
class CompactedWindow:
    """What became of one window. Numbers of files and bytes are None if nothing was written."""

    job: str
    dataset_key: str
    block_range: BlockRange
    outcome: str
    """As :class:`CompactionOutcome` calls it, or ``failed``, or ``due`` in a dry run."""
    reason: str
    files_before: int | None = None
    files_after: int | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    rows: int | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "block_range"}
        return {**plain, "range_start": self.block_range.start, "range_end": self.block_range.end}


def compact_windows(
    settings: Settings,
    job_name: str | None,
    dataset_key: str | None,
    window: BlockRange | None,
    *,
    dry_run: bool,
    progress: Progress,
) -> list[CompactedWindow]:
    """Compact the due windows of all jobs, one job or one stream, or one window. A failed window stops no other.

    Raises InvalidInput if job, stream or window is unknown, or if blocks of the window are not committed, and OldForm
    if the job's rows have an older form.
    """
    if job_name is None and (dataset_key is not None or window is not None):
        raise InvalidInput("pass the job too: --job J")
    with opened(settings) as runtime:
        if job_name is not None:
            runtime.jobs.require_present_form(job_name)
        wanted = list(_wanted(runtime, _streams(runtime, job_name, dataset_key), window))
        if dry_run:
            return [_expected(stream, state) for stream, state in wanted]
        advance = progress(sum(state.versions for _, state in wanted))
        return [_compacted(runtime, stream, state, advance, is_named=window is not None) for stream, state in wanted]


def exit_code(found: Sequence[CompactedWindow]) -> int:
    """Return 1 if a window failed, 3 if one was left as it is although it is due, else 0."""
    outcomes = {each.outcome for each in found}
    return 1 if "failed" in outcomes else 3 if outcomes & LEFT else 0


def _streams(runtime: Runtime, job_name: str | None, dataset_key: str | None) -> list[StreamRow]:
    if job_name is None:
        return [stream for stream in runtime.jobs.streams() if stream.enabled]
    if dataset_key is not None:
        stream = runtime.jobs.stream_of(job_name, dataset_key)
        require_compaction(stream)
        return [stream]
    job_id = runtime.jobs.find(job_name)
    return [stream for stream in runtime.jobs.streams() if stream.job_id == job_id and stream.enabled]


def _wanted(
    runtime: Runtime, streams: Sequence[StreamRow], window: BlockRange | None
) -> Iterator[tuple[StreamRow, WindowState]]:
    for stream in streams:
        if window is not None and stream.compact is None:
            continue  # it has no windows; other streams of the job may have this one
        if window is not None:
            known = named_window(runtime.due_windows.windows(stream), window, stream.dataset_key)
            yield stream, runtime.due_windows.state(stream, known)
        else:
            for state in runtime.due_windows.due(stream, limit=_MOST_WINDOWS, manual=True):
                yield stream, state


def _expected(stream: StreamRow, state: WindowState) -> CompactedWindow:
    """Return what a compaction would do, for a dry run."""
    target = stream.compact.target_bytes if stream.compact else 1
    return CompactedWindow(
        stream.job_name,
        stream.dataset_key,
        state.block_range,
        "due" if state.whole else "not_whole",
        "would be compacted" if state.whole else "some of its blocks are not committed",
        files_before=state.files,
        files_after=output_files(state.bytes, target),
        bytes_before=state.bytes,
    )


def _compacted(
    runtime: Runtime, stream: StreamRow, state: WindowState, advance: Callable[[], None], *, is_named: bool
) -> CompactedWindow:
    """Compact a window. One that is not committed wholly any more is no error unless it is named."""
    seen = 0

    def progress(done: int, total: int) -> None:
        nonlocal seen
        for _ in range(min(done, total) - seen):
            advance()
        seen = max(seen, done)

    try:
        result = runtime.compaction.compact(stream, state.block_range, manual=True, progress=progress)
    except InvalidInput as error:
        if is_named:
            raise
        return CompactedWindow(stream.job_name, stream.dataset_key, state.block_range, "not_whole", str(error))
    except TraceError as error:
        return CompactedWindow(stream.job_name, stream.dataset_key, state.block_range, "failed", str(error))
    return _done(stream, result)


def _done(stream: StreamRow, result: CompactionResult) -> CompactedWindow:
    names = ("files_before", "files_after", "bytes_before", "bytes_after", "rows", "seconds")
    numbers = {name: getattr(result, name) for name in names} if result.layout_id else {}
    return CompactedWindow(
        stream.job_name,
        stream.dataset_key,
        result.window.block_range,
        result.outcome.value,
        result.reason,
        **numbers,
    )
