"""The function behind ``cold``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from trace_dagster.cli.commands import opened
from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput
from trace_dagster.planning.cold import Raised, raise_cold_end
from trace_dagster.registry.jobs import follow
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime


def commit_hot_blocks(
    settings: Settings, job_name: str | None, dataset_key: str | None, say: Callable[[str], None]
) -> list[Raised]:
    """Plan the final whole ranges of streams whose rows are hot, of one job or of all; say how many blocks these are.

    Raises InvalidInput if job or stream is unknown, or does not follow the head.
    """
    with opened(settings) as runtime:
        streams = _streams(runtime, job_name, dataset_key)
        found = raise_cold_end(runtime.database, streams)
        runtime.planner.plan()
        runtime.outbox.publish(runtime.queue)
    for line in _lines(streams, found):
        say(line)
    return found


def _streams(runtime: Runtime, job_name: str | None, dataset_key: str | None) -> list[StreamRow]:
    if job_name is None:
        if dataset_key is not None:
            raise InvalidInput("pass the job too: --job J")
        return [stream for stream in runtime.jobs.streams() if stream.enabled and follow(stream.job)]
    if dataset_key is not None:
        wanted = [runtime.jobs.stream_of(job_name, dataset_key)]
    else:
        job_id = runtime.jobs.find(job_name)
        wanted = [stream for stream in runtime.jobs.streams() if stream.job_id == job_id and stream.enabled]
    if any(follow(stream.job) is None for stream in wanted):
        raise InvalidInput(f"job {job_name} has no hot blocks: its mode is fixed_target")
    return wanted


def _lines(streams: Sequence[StreamRow], found: Sequence[Raised]) -> Iterator[str]:
    by_dataset = {raised.dataset_uuid: raised for raised in found}
    for stream in streams:
        raised = by_dataset.get(stream.dataset_uuid)
        name = f"{stream.job_name}: {stream.dataset_key}"
        if raised is None or not raised.blocks:
            yield f"{name}: no final whole range waits to be committed"
        else:
            when = "now" if stream.job_enabled else "when the job is resumed"
            yield f"{name}: {raised.blocks:,} hot blocks, up to block {raised.cold_end - 1:,}, are committed {when}"
