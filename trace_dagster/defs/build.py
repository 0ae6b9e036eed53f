"""Builds the definitions from the jobs that are applied in Postgres."""

from collections.abc import Callable, Iterator
from typing import Any

from dagster import (
    AssetChecksDefinition,
    AssetsDefinition,
    AssetSelection,
    Definitions,
    DynamicPartitionsDefinition,
    define_asset_job,
)

from trace_dagster.config.settings import Settings
from trace_dagster.dagster_instance.executor import thread_executor
from trace_dagster.defs.analytics import analytics_assets, analytics_job_name
from trace_dagster.defs.cold_schedules import cold_schedules
from trace_dagster.defs.compaction import compacted_asset, compacted_key
from trace_dagster.defs.compaction_triggers import compaction_schedules, compaction_sensor
from trace_dagster.defs.reconcile import coverage_check
from trace_dagster.defs.resources import RuntimeHolder, commit_io_manager, runtime_resource
from trace_dagster.defs.sensors import sensors
from trace_dagster.defs.streams import IO_MANAGER, RUNTIME, asset_key, stream_asset
from trace_dagster.defs.tip import tip_sensor
from trace_dagster.defs.tip_check import tip_check
from trace_dagster.defs.verification_check import verification_check
from trace_dagster.errors import TraceError
from trace_dagster.planning.compactions import CompactionGroup, compaction_groups
from trace_dagster.planning.run_groups import RunGroup, all_run_groups, partitions_name
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.tip_status import has_tip
from trace_dagster.runtime import Runtime


def build_definitions(read_settings: Callable[[], Settings]) -> Definitions:
    """Return every applied job as assets, jobs, checks and sensors.

    If the settings are not valid or the registry cannot be reached, the code location loads empty, with one message in
    its metadata and log.
    """
    try:
        settings = read_settings().complete()
        runtime = Runtime(settings)
        try:
            streams = runtime.jobs.streams()
        finally:
            runtime.close()
    except TraceError as error:
        return Definitions(metadata={"trace/unavailable": str(error)})
    return definitions_of(streams, settings)


def definitions_of(streams: list[StreamRow], settings: Settings) -> Definitions:
    """Return the definitions of the given streams, without a query to the registry."""
    ranges, bucket = settings.ranges.ranges_per_run, settings.s3.bucket
    assets = [stream_asset(stream, _grid(stream), ranges, bucket) for stream in streams]
    derived = list(analytics_assets(streams))
    run_groups = list(all_run_groups(streams))
    group_jobs = [_run_group_job(group) for group in run_groups]
    chains = sorted({stream.chain_id for stream in streams})
    analytics_jobs = [job for chain_id in chains if (job := _analytics_job(chain_id, derived)) is not None]
    groups = list(compaction_groups(streams))
    compacted = [compacted_asset(stream, _windows(group), bucket) for group in groups for stream in group.streams]
    compaction_jobs = [_compaction_job(group) for group in groups]
    holder = RuntimeHolder(settings)
    return Definitions(
        assets=[*assets, *derived, *compacted],
        jobs=[*group_jobs, *analytics_jobs, *compaction_jobs],
        asset_checks=list(_checks(streams)),
        sensors=[
            *(sensors(holder.get, streams, group_jobs) if group_jobs else []),
            *([tip_sensor(holder.get)] if any(map(has_tip, streams)) else []),
            *([compaction_sensor(holder.get, groups, compaction_jobs)] if groups else []),
        ],
        schedules=[
            *compaction_schedules(holder.get, groups, compaction_jobs),
            *cold_schedules(holder.get, run_groups, group_jobs),
        ],
        resources={RUNTIME: runtime_resource(settings), IO_MANAGER: commit_io_manager},
        executor=thread_executor,
    )


def _checks(streams: list[StreamRow]) -> Iterator[AssetChecksDefinition]:
    for stream in streams:
        yield coverage_check(stream)
        yield verification_check(stream, _grid(stream))
        if has_tip(stream):
            yield tip_check(stream)


def _grid(stream: StreamRow) -> DynamicPartitionsDefinition:
    """Return the partitions definition that streams on the same grid share by name."""
    return DynamicPartitionsDefinition(name=partitions_name(stream))


def _windows(group: CompactionGroup) -> DynamicPartitionsDefinition:
    """Return the partitions definition that streams with the same windows share by name."""
    return DynamicPartitionsDefinition(name=group.partitions_name)


def _compaction_job(group: CompactionGroup) -> Any:
    keys = [compacted_key(stream.chain_id, stream.dataset_key) for stream in group.streams]
    return define_asset_job(
        group.name,
        selection=AssetSelection.assets(*keys),
        description=f"Merges the files of {', '.join(each.dataset_key for each in group.streams)} into few large ones.",
        tags={"trace/job": group.streams[0].job_name},
    )


def _run_group_job(group: RunGroup) -> Any:
    keys = [asset_key(stream.chain_id, stream.dataset_key) for stream in group.streams]
    return define_asset_job(
        group.name,
        selection=AssetSelection.assets(*keys).without_checks(),
        description=f"Block ranges of {', '.join(stream.dataset_key for stream in group.streams)}.",
        tags={"trace/job": group.streams[0].job_name},
    )


def _analytics_job(chain_id: int, derived: list[AssetsDefinition]) -> Any:
    keys = [found.key for found in derived if found.key.path[0] == str(chain_id)]
    if not keys:
        return None
    return define_asset_job(
        analytics_job_name(chain_id),
        selection=AssetSelection.assets(*keys),
        description=f"Every analytic of chain {chain_id} over what is committed now.",
    )
