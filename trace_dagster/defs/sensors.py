"""The planner as a Dagster sensor: fills the ledger, registers partitions, asks for runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    SkipReason,
    sensor,
)
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from trace_dagster.blocks import BlockRange, cells
from trace_dagster.defs.streams import asset_key
from trace_dagster.lanes import Lane, lanes
from trace_dagster.planner import Batch, Planner
from trace_dagster.registry.jobs import StreamRow
from trace_dagster.runtime import Runtime

BATCH_TAG = "trace/batch"
PLANNER_INTERVAL_SECONDS = 5

_OVER = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}


def planner_sensor(runtime_of: Callable[[], Runtime], jobs: Sequence[Any]) -> SensorDefinition:
    """The sensor that keeps every applied job moving."""

    @sensor(
        name="trace_planner",
        minimum_interval_seconds=PLANNER_INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        jobs=jobs,
        description="Plans block ranges of every applied chain_sync job and launches runs over them.",
    )
    def trace_planner(context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        runtime = runtime_of()
        planner = Planner(runtime.database, runtime.jobs, runtime.read_head)
        requested = False
        for batch in tick(planner, runtime.jobs.streams(), context.instance):
            requested = True
            yield run_request(batch)
        if not requested:
            yield SkipReason("every planned range is committed, in a run, or waiting: see `trace-lite status`")

    return trace_planner


def tick(planner: Planner, streams: Sequence[StreamRow], instance: DagsterInstance) -> list[Batch]:
    """One planner step against one Dagster instance."""
    planner.plan()
    for lane in lanes(streams):
        register_span(lane, instance)
    return planner.batches(
        lambda lane, keys: register_keys(lane.partitions_name, keys, instance),
        lambda batch_id: run_is_over(batch_id, instance, planner),
    )


def run_request(batch: Batch) -> RunRequest:
    """A run over the batch's ranges and the streams that still need them; its key is the batch's id."""
    chain_id = batch.lane.streams[0].chain_id
    return RunRequest(
        run_key=str(batch.batch_id),
        job_name=batch.lane.name,
        tags={
            ASSET_PARTITION_RANGE_START_TAG: batch.keys[0],
            ASSET_PARTITION_RANGE_END_TAG: batch.keys[-1],
            BATCH_TAG: str(batch.batch_id),
        },
        asset_selection=[asset_key(chain_id, key) for key in batch.dataset_keys],
    )


def register_span(lane: Lane, instance: DagsterInstance) -> None:
    """Make every partition of the lane's eligible span known, so that the UI shows what is still to come."""
    for stream in lane.streams[:1]:
        end = stream.eligible_end if stream.eligible_end is not None else stream.from_block
        full = end if end == stream.to_block else end // stream.chunk_size * stream.chunk_size
        if full > stream.from_block:
            keys = [cell.key for cell in cells(BlockRange(stream.from_block, full), stream.chunk_size)]
            if not instance.has_dynamic_partition(lane.partitions_name, keys[-1]):
                _add(lane.partitions_name, keys, instance)


def register_keys(name: str, keys: Sequence[str], instance: DagsterInstance) -> Mapping[str, int]:
    """Add missing keys; returns the position of every key in Dagster's own (insertion) order."""
    known = instance.get_dynamic_partitions(name)
    if not set(keys) <= set(known):
        _add(name, keys, instance)
        known = instance.get_dynamic_partitions(name)
    return {key: position for position, key in enumerate(known)}


def run_is_over(batch_id: UUID, instance: DagsterInstance, planner: Planner) -> bool:
    """Whether a batch's run has ended, or never came to be."""
    records = instance.get_run_records(RunsFilter(tags={BATCH_TAG: str(batch_id)}), limit=1)
    if records:
        return records[0].dagster_run.status in _OVER
    return any(row["batch_id"] == batch_id and row["old"] for row in planner.open_batches())


def _add(name: str, keys: Sequence[str], instance: DagsterInstance) -> None:
    known = set(instance.get_dynamic_partitions(name))
    instance.add_dynamic_partitions(name, [key for key in keys if key not in known])
