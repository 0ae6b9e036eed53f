"""The windows of each stream as Dagster's partitions, and compactions that Dagster does not show yet."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dagster import AssetMaterialization, DagsterInstance, MetadataValue

from trace_dagster.defs.compaction import compacted_key
from trace_dagster.defs.partitions import KEYS_AT_ONCE, REMOVED_AT_ONCE, REPORTED_AT_ONCE, next_repair
from trace_dagster.messages.logs import component_log
from trace_dagster.planning.compactions import CompactionGroup
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.windows import LastLayout, last_layouts
from trace_dagster.runtime import Runtime

_log = component_log("defs")


def repair_windows_if_due(
    runtime: Runtime, groups: Sequence[CompactionGroup], instance: DagsterInstance, due_at: float
) -> float:
    """Repair the partitions of every group if it is time; return when the next repair is due, in seconds since 1970."""
    started = time.time()
    if started < due_at:
        return due_at
    for group in groups:
        repair_windows(runtime, group, instance)
        for stream in group.streams:
            report_layouts(runtime, stream, instance)
    return next_repair(started)


def repair_windows(runtime: Runtime, group: CompactionGroup, instance: DagsterInstance) -> None:
    """Add the keys of the group's windows that Dagster lacks, and remove keys that are no windows any more."""
    known = {*instance.get_dynamic_partitions(group.partitions_name)}
    wanted = {window.key for stream in group.streams for window in runtime.due_windows.windows(stream)}
    missing, extra = sorted(wanted - known), sorted(known - wanted)[:REMOVED_AT_ONCE]
    for start in range(0, len(missing), KEYS_AT_ONCE):
        instance.add_dynamic_partitions(group.partitions_name, missing[start : start + KEYS_AT_ONCE])
    for key in extra:
        instance.delete_dynamic_partition(group.partitions_name, key)
    if missing or extra:
        _log.event("partitions_repaired", partitions=group.partitions_name, added=len(missing), removed=len(extra))


def report_layouts(runtime: Runtime, stream: StreamRow, instance: DagsterInstance) -> None:
    """Report windows as materialized that the command line compacted, or a run that ended before it said so."""
    layouts = last_layouts(runtime.database, stream.dataset_uuid)
    if not layouts:
        return
    key = compacted_key(stream.chain_id, stream.dataset_key)
    shown = instance.get_materialized_partitions(key)
    for layout in [each for each in layouts if each.block_range.key not in shown][:REPORTED_AT_ONCE]:
        instance.report_runless_asset_event(
            AssetMaterialization(
                key,
                partition=layout.block_range.key,
                description="compacted outside of a run of Dagster",
                metadata=_metadata(runtime, layout),
            )
        )


def _metadata(runtime: Runtime, layout: LastLayout) -> dict[str, MetadataValue]:
    return {
        "bytes_after": MetadataValue.int(layout.bytes),
        "rows": MetadataValue.int(layout.rows),
        "manifest": MetadataValue.path(f"s3://{runtime.settings.s3.bucket}/{layout.manifest_key}"),
        "layout_id": MetadataValue.text(str(layout.layout_id)),
    }
