"""What starts compactions: a sensor at the threshold, and one schedule per cron. Both request the same runs.

A stream with a cron is compacted by its schedule and by hand, any other at the threshold and by hand.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from trace_dagster.dagster_instance.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from trace_dagster.defs.compaction import AUTOMATIC_TAG, compacted_key
from trace_dagster.defs.compaction_partitions import repair_windows_if_due
from trace_dagster.defs.cron_schedules import cron_schedule
from trace_dagster.defs.partitions import register_keys
from trace_dagster.defs.sensors import BLOCKS_TAG, RuntimeOf
from trace_dagster.planning.compactions import (
    WINDOWS_PER_RUN,
    CompactionGroup,
    CompactionRun,
    compaction_groups,
    next_run,
)
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

INTERVAL_SECONDS = 10
RUNS_PER_SCHEDULE_TICK = 64
"""Most runs that one tick of a schedule requests for a group; together they have about a thousand windows."""

_UNFINISHED = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

OfStream = Callable[[StreamRow], bool]


def compaction_sensor(
    runtime_of: RuntimeOf, groups: Sequence[CompactionGroup], jobs: Sequence[Any]
) -> SensorDefinition:
    """Return the sensor of the threshold. ``groups`` are those that this code location was loaded with."""

    @sensor(
        name="trace_compactor",
        jobs=jobs,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Compacts windows whose blocks are all committed, in streams without a cron of their own.",
    )
    def trace_compactor(context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        runtime, instance = runtime_of(), context.instance
        current = current_groups(runtime, groups)
        context.update_cursor(str(repair_windows_if_due(runtime, current, instance, float(context.cursor or 0))))
        requests = [
            request
            for group in current
            if not unfinished_runs(group, instance)
            for request in run_requests(runtime, group, instance, _at_threshold, "threshold", most=1)
        ]
        yield from requests
        if not requests:
            yield SkipReason("no window is due, or its run is under way: see `trace-lite status`")

    return trace_compactor


def compaction_schedules(
    runtime_of: RuntimeOf, groups: Sequence[CompactionGroup], jobs: Sequence[Any]
) -> Iterator[ScheduleDefinition]:
    """Yield a schedule for every cron of a group's streams."""
    for group, job in zip(groups, jobs, strict=True):
        crons = {stream.compact.cron for stream in group.streams if stream.compact and stream.compact.cron}
        for cron in sorted(crons):
            yield _schedule(runtime_of, group, job, cron)


def _schedule(runtime_of: RuntimeOf, group: CompactionGroup, job: Any, cron: str) -> ScheduleDefinition:
    def requests(context: ScheduleEvaluationContext) -> list[RunRequest] | SkipReason:
        runtime, instance = runtime_of(), context.instance
        at_this_cron = partial(_has_cron, cron=cron)
        found = [
            request
            for current in current_groups(runtime, [group])
            for request in run_requests(
                runtime, current, instance, at_this_cron, "schedule", most=RUNS_PER_SCHEDULE_TICK
            )
        ]
        return found or SkipReason("no window is due, or its run is under way: see `trace-lite status`")

    return cron_schedule(group.name, job, cron, "Compacts the windows that are due at this time.", requests)


def _at_threshold(stream: StreamRow) -> bool:
    return stream.compact is not None and stream.compact.cron is None


def _has_cron(stream: StreamRow, cron: str) -> bool:
    return stream.compact is not None and stream.compact.cron == cron


def current_groups(runtime: Runtime, loaded: Sequence[CompactionGroup]) -> list[CompactionGroup]:
    """Return the groups of jobs that are not paused, with those of their streams that are loaded as they are now."""
    known = {(group.name, group.partitions_name): group for group in loaded}
    found = []
    for group in compaction_groups([stream for stream in runtime.jobs.streams() if stream.job_enabled]):
        before = known.get((group.name, group.partitions_name))
        keys = {stream.dataset_key for stream in before.streams} if before else set()
        streams = tuple(stream for stream in group.streams if stream.dataset_key in keys)
        if streams:
            found.append(replace(group, streams=streams))
    return found


def unfinished_runs(group: CompactionGroup, instance: DagsterInstance) -> list[DagsterRun]:
    """Return the runs of a group that are queued or under way."""
    return list(instance.get_runs(RunsFilter(job_name=group.name, statuses=_UNFINISHED)))


def run_requests(
    runtime: Runtime, group: CompactionGroup, instance: DagsterInstance, wanted: OfStream, trigger: str, *, most: int
) -> Iterator[RunRequest]:
    """Yield at most ``most`` runs over the due windows of the wanted streams that are in no unfinished run."""
    taken = [_keys_of(run) for run in unfinished_runs(group, instance)]
    due = {}
    for stream in filter(wanted, group.streams):
        windows = [state.block_range for state in runtime.due_windows.due(stream, limit=most * WINDOWS_PER_RUN)]
        due[stream.dataset_uuid] = [
            window for window in windows if not any(first <= window.key <= last for first, last in taken)
        ]
    keys = sorted({window.key for windows in due.values() for window in windows})
    positions = register_keys(group.partitions_name, keys, instance) if keys else {}
    for _ in range(most):
        run = next_run(group, due, positions)
        if run is None:
            return
        due = {dataset: [each for each in windows if each not in run.windows] for dataset, windows in due.items()}
        yield _request(run, trigger)


def _keys_of(run: DagsterRun) -> tuple[str, str]:
    """Return the first and last key of a run."""
    one = run.tags.get(PARTITION_NAME_TAG, "")
    first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG, one)
    return first, run.tags.get(ASSET_PARTITION_RANGE_END_TAG, one)


def _request(run: CompactionRun, trigger: str) -> RunRequest:
    first, last = run.windows[0], run.windows[-1]
    chain_id = run.group.streams[0].chain_id
    return RunRequest(
        job_name=run.group.name,
        tags={
            ASSET_PARTITION_RANGE_START_TAG: first.key,
            ASSET_PARTITION_RANGE_END_TAG: last.key,
            BLOCKS_TAG: f"{first.start}-{last.end}",
            AUTOMATIC_TAG: trigger,
            "dagster/priority": "-1",  # new ranges go first
        },
        asset_selection=[compacted_key(chain_id, key) for key in run.dataset_keys],
        asset_check_keys=[],
    )
