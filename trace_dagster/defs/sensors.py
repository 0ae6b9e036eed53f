"""The sensors that keep applied jobs moving: heads, planner, wake-ups to runs, reconciliation."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

from trace_dagster.blocks import BlockRange, cells
from trace_dagster.dagster_instance.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from trace_dagster.defs.reconcile import lost_events, stream_events
from trace_dagster.defs.streams import asset_key
from trace_dagster.planning.dispatcher import BATCH_TAG, RunBatch, loaded_names
from trace_dagster.planning.run_groups import RunGroup, active_run_groups
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime
from trace_dagster.wakeups.outbox import WAKEUPS_AT_ONCE

INTERVAL_SECONDS = 5
WAKEUPS_SECONDS = 4
"""Seconds; below the daemon's loop of 5 s, because a sensor that is due after exactly 5 s often misses a loop."""

SHOWN_AHEAD = 100_000
KEYS_AT_ONCE = 1000
"""Partition keys read or added by one statement."""

REWAKE_SECONDS = 120.0
"""Seconds after which a due task that is in no run gets another wake-up, because its message may be lost."""

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
        description="Plans the block ranges of every applied chain_sync job and publishes their wake-ups.",
    )
    def trace_planner(context: SensorEvaluationContext) -> SkipReason:
        runtime = runtime_of()
        planned, woken, published = plan_tick(runtime)
        for group in active_run_groups(runtime.jobs.streams()):
            register_span(group, context.instance)
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
        description="Reports commits whose materialization Dagster lost, and each stream's coverage and progress.",
    )
    def trace_reconciler(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        runtime = runtime_of()
        lost = lost_events(runtime, context.instance)
        events, cursor = stream_events(runtime, context.cursor, time.time())
        if not lost and not events:
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
            BATCH_TAG: str(batch.batch_id),
        },
        asset_selection=[asset_key(chain_id, key) for key in batch.dataset_keys],
        asset_check_keys=[],  # the reconciler reports coverage: a run's failed range would only skip the check
    )


def register_span(group: RunGroup, instance: DagsterInstance) -> None:
    """Add every partition of the group's eligible span to Dagster, so that the UI shows the ranges that are still to
    come.

    A span with more partitions than Dagster shows well is added only as far as it is planned.
    """
    for stream in group.streams[:1]:
        end = stream.eligible_end if stream.eligible_end is not None else stream.from_block
        full = end if end == stream.to_block else end // stream.chunk_size * stream.chunk_size
        if (full - stream.from_block) // stream.chunk_size > SHOWN_AHEAD:
            full = min(full, stream.next_block)
        if full > stream.from_block:
            last = BlockRange(max(stream.from_block, (full - 1) // stream.chunk_size * stream.chunk_size), full)
            if not instance.has_dynamic_partition(group.partitions_name, last.key):
                _register_end(group.partitions_name, BlockRange(stream.from_block, full), stream.chunk_size, instance)


def _register_end(name: str, span: BlockRange, chunk_size: int, instance: DagsterInstance) -> None:
    """Add the partitions that the end of a grid lacks, in block order, starting from the last page that is complete."""
    missing: list[list[str]] = []
    for page in reversed(list(cells(span, chunk_size * KEYS_AT_ONCE))):
        unknown = _unknown(name, [cell.key for cell in cells(page, chunk_size)], instance)
        if not unknown:
            break
        missing.append(unknown)
    for keys in reversed(missing):
        instance.add_dynamic_partitions(name, keys)


def register_keys(name: str, keys: Sequence[str], instance: DagsterInstance) -> Mapping[str, int]:
    """Add missing keys; return their positions in Dagster's own (insertion) order, and those of all newer keys.

    Positions count back from the newest key, -1, so that a new range is found without reading all earlier keys.
    """
    instance.add_dynamic_partitions(name, _unknown(name, keys, instance))
    positions: dict[str, int] = {}
    cursor, limit = None, KEYS_AT_ONCE
    while not positions.keys() >= set(keys):
        page = instance.get_paginated_dynamic_partitions(name, limit, ascending=False, cursor=cursor)
        positions |= {key: -1 - number for number, key in enumerate(page.results, start=len(positions))}
        if not page.has_more:
            break
        cursor, limit = page.cursor, 4 * limit  # larger pages farther back, so that few suffice
    return positions


def run_states(batch_ids: Sequence[UUID], instance: DagsterInstance) -> dict[UUID, bool]:
    """Return for each batch that has a run whether that run has ended."""
    wanted = [str(batch_id) for batch_id in batch_ids]
    records = instance.get_run_records(RunsFilter(tags={BATCH_TAG: wanted})) if wanted else []
    return {UUID(record.dagster_run.tags[BATCH_TAG]): record.dagster_run.status in _OVER for record in records}


def _unknown(name: str, keys: Sequence[str], instance: DagsterInstance) -> list[str]:
    """Return the keys that Dagster does not have, in the given order."""
    known = instance.get_existing_dynamic_partitions(name, keys)
    return [key for key in keys if key not in known]
