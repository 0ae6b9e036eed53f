"""The sensors that keep applied jobs moving: heads, planner, wake-ups to runs, reconciliation."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from trace_dagster.blocks import BlockRange
from trace_dagster.dagster_instance.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from trace_dagster.defs.partitions import register_ahead, register_keys, repair_if_due
from trace_dagster.defs.reconcile import lost_events, stream_events
from trace_dagster.defs.streams import asset_key
from trace_dagster.planning.dispatcher import BATCH_TAG, RunBatch, RunState, loaded_names
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime
from trace_dagster.wakeups.outbox import WAKEUPS_AT_ONCE

BLOCKS_TAG = "trace/blocks"
"""Tag of the runs that come from a batch: the blocks from its first to its last range, end-exclusive."""

INTERVAL_SECONDS = 5
WAKEUPS_SECONDS = 4
"""Seconds; below the daemon's loop of 5 s, because a sensor that is due after exactly 5 s often misses a loop."""

REWAKE_SECONDS = 120.0
"""Seconds after which a due task that is in no run gets another wake-up, because its message may be lost."""

_QUEUED = {DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED}
_OVER = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}

_running_sensor = partial(sensor, minimum_interval_seconds=INTERVAL_SECONDS, default_status=DefaultSensorStatus.RUNNING)

RuntimeOf = Callable[[], Runtime]


def sensors(runtime_of: RuntimeOf, streams: Sequence[StreamRow], jobs: Sequence[Any]) -> list[SensorDefinition]:
    """Return all sensors. ``streams`` are those this code location was loaded with, ``jobs`` their run groups' jobs."""
    return [
        heads_sensor(runtime_of),
        planner_sensor(runtime_of),
        wakeups_sensor(runtime_of, streams, jobs),
        reconciler_sensor(runtime_of),
    ]


def heads_sensor(runtime_of: RuntimeOf) -> SensorDefinition:
    """Return the sensor that observes chain heads. It is separate so that a hanging node does not delay planning."""

    @_running_sensor(
        name="trace_heads",
        description="Fetches the latest and finalized block of every rpc pool in use.",
    )
    def trace_heads(_: SensorEvaluationContext) -> SkipReason:
        runtime = runtime_of()
        return SkipReason(f"{runtime.heads.observe(runtime.jobs.streams())} rpc pools observed")

    return trace_heads


def planner_sensor(runtime_of: RuntimeOf) -> SensorDefinition:
    """Return the sensor that plans ranges and publishes their wake-ups."""

    @_running_sensor(
        name="trace_planner",
        description="Plans the block ranges of every applied chain_sync job, and publishes their wake-ups.",
    )
    def trace_planner(context: SensorEvaluationContext) -> SkipReason:
        runtime = runtime_of()
        planned, woken, published = plan_tick(runtime)
        streams, instance = runtime.jobs.streams(), context.instance
        register_ahead(runtime.database, streams, instance)
        due_at = repair_if_due(runtime.database, streams, instance, float(context.cursor or 0))
        context.update_cursor(str(due_at))
        return SkipReason(f"{planned} ranges planned, {woken} wake-ups repeated, {published} wake-ups published")

    return trace_planner


def plan_tick(runtime: Runtime) -> tuple[int, int, int]:
    """Plan, repeat lost wake-ups, publish. Return the counts of planned ranges, repeated and published wake-ups."""
    planned = runtime.planner.plan()
    woken = runtime.outbox.rewake(patience_seconds=REWAKE_SECONDS, limit=WAKEUPS_AT_ONCE)
    return planned, woken, runtime.outbox.publish(runtime.queue)


def wakeups_sensor(runtime_of: RuntimeOf, streams: Sequence[StreamRow], jobs: Sequence[Any]) -> SensorDefinition:
    """Return the sensor that receives wake-ups and requests runs over batches of ranges."""
    loaded = loaded_names(streams)

    @_running_sensor(
        name="trace_wakeups",
        minimum_interval_seconds=WAKEUPS_SECONDS,
        jobs=jobs,
        description="Turns wake-ups of planned ranges into runs.",
    )
    def trace_wakeups(context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        instance = context.instance
        batches = runtime_of().dispatcher.tick(
            lambda group, keys: register_keys(group.partitions_name, keys, instance),
            lambda found: run_states(found, instance),
            loaded,
        )
        yield from (run_request(batch) for batch in batches)
        if not batches:
            yield SkipReason("every planned range is committed, in a run, or waiting: see `trace-lite status`")

    return trace_wakeups


def reconciler_sensor(runtime_of: RuntimeOf) -> SensorDefinition:
    """Return the sensor that reports commits and progress that Dagster does not show yet."""

    @_running_sensor(
        name="trace_reconciler",
        description="Reports commits whose materialization Dagster lost, and each stream's coverage and progress."
        " Deletes old entries of the change log.",
    )
    def trace_reconciler(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        runtime = runtime_of()
        lost = lost_events(runtime, context.instance)
        events, cursor = stream_events(runtime, context.cursor, time.time())
        if not lost and not events:
            context.update_cursor(cursor)
            return SkipReason("Dagster shows every commit; no stream moved")
        return SensorResult(asset_events=[*lost, *events], cursor=cursor)

    return trace_reconciler


def run_request(batch: RunBatch) -> RunRequest:
    """Return a run request over the batch's ranges and the streams that still need them; its key is the batch's id."""
    chain_id = batch.group.streams[0].chain_id
    return RunRequest(
        run_key=str(batch.batch_id),
        job_name=batch.group.name,
        tags={
            ASSET_PARTITION_RANGE_START_TAG: batch.keys[0],
            ASSET_PARTITION_RANGE_END_TAG: batch.keys[-1],
            BLOCKS_TAG: f"{BlockRange.from_key(batch.keys[0]).start}-{BlockRange.from_key(batch.keys[-1]).end}",
            BATCH_TAG: str(batch.batch_id),
        },
        asset_selection=[asset_key(chain_id, key) for key in batch.dataset_keys],
        asset_check_keys=[],  # the reconciler reports coverage: a run's failed range would only skip the check
    )


def run_states(batch_ids: Sequence[UUID], instance: DagsterInstance) -> dict[UUID, RunState]:
    """Return the state of the run of each batch that has one; of several runs, that of the one that is least far."""
    wanted = [str(batch_id) for batch_id in batch_ids]
    records = instance.get_run_records(RunsFilter(tags={BATCH_TAG: wanted})) if wanted else []
    found: dict[UUID, RunState] = {}
    for record in records:
        batch, state = UUID(record.dagster_run.tags[BATCH_TAG]), _state(record.dagster_run.status)
        found[batch] = min(found.get(batch, state), state, key=list(RunState).index)
    return found


def _state(status: DagsterRunStatus) -> RunState:
    if status in _OVER:
        return RunState.OVER
    return RunState.QUEUED if status in _QUEUED else RunState.STARTED
