"""One asset per stream whose partitions are windows: a run of it compacts them, one after the other."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetDep,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    AssetsDefinition,
    BackfillPolicy,
    DynamicPartitionsDefinition,
    MetadataValue,
    SpecificPartitionsPartitionMapping,
    asset,
)

from trace_dagster.blocks import BlockRange
from trace_dagster.dagster_instance.tags import require_partitions
from trace_dagster.defs.streams import RUNTIME, asset_key
from trace_dagster.errors import RETRYABLE, InvalidInput, TraceError
from trace_dagster.messages.redaction import redact
from trace_dagster.planning.compactions import WINDOWS_PER_RUN, window_blocks
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

if TYPE_CHECKING:
    from trace_dagster.compaction.compactor import CompactionResult

AUTOMATIC_TAG = "trace/compaction"
"""Tag of the runs that a sensor or schedule starts: threshold or schedule."""

_NO_PARTITIONS = SpecificPartitionsPartitionMapping([])
"""The ranges of a window are many, and the registry knows whether they are committed: Dagster need not look at them."""

_ONE_AT_A_TIME = threading.Lock()
"""Held while a window is compacted: the memory of one compaction is bounded, and streams share a run."""


def compacted_key(chain_id: int, dataset_key: str) -> AssetKey:
    """Return the asset key of a stream's compaction, such as ``[1, logs, logs_compacted]``.

    The last part repeats the dataset key, because Dagster's lineage shows that part only.
    """
    return AssetKey([*asset_key(chain_id, dataset_key).path, f"{dataset_key}_compacted"])


def compacted_asset(
    stream: StreamRow, partitions: DynamicPartitionsDefinition, bucket: str | None = None
) -> AssetsDefinition:
    """Return the compaction asset of a stream, whose partitions are its windows."""

    @asset(
        key=compacted_key(stream.chain_id, stream.dataset_key),
        deps=[AssetDep(asset_key(stream.chain_id, stream.dataset_key), partition_mapping=_NO_PARTITIONS)],
        group_name=stream.job_name,
        partitions_def=partitions,
        output_required=False,
        required_resource_keys={RUNTIME},
        description=_description(stream),
        kinds={"parquet", "s3"},
        tags={"trace/job": stream.job_name, "trace/dataset": stream.dataset.name},
        owners=[f"team:{stream.job_name}"],
        metadata=_metadata(stream, bucket),
    )
    def compacted(context: AssetExecutionContext) -> Iterator[Any]:
        require_partitions(context.job_name, context.run.tags)
        failed = [error for key in context.partition_keys if (error := _compact(context, stream, key)) is not None]
        if failed:
            raise failed[0]
        yield from ()

    policy = BackfillPolicy.multi_run(WINDOWS_PER_RUN)
    return compacted.with_attributes(backfill_policy=policy)  # as an argument of the decorator, it prints a warning


def _description(stream: StreamRow) -> str:
    when = f"at cron `{stream.compact.cron}` UTC" if stream.compact and stream.compact.cron else "as soon as it is due"
    return (
        f"The files of `{stream.dataset_key}`, merged into few large ones: one partition per window of"
        f" {window_blocks(stream):,} blocks. A window whose blocks are all committed is compacted {when}."
        " Queries give the same rows before and after."
    )


def _metadata(stream: StreamRow, bucket: str | None) -> dict[str, Any]:
    settings = stream.compact.model_dump() if stream.compact else {}
    found = {name: value for name, value in settings.items() if value is not None}
    if bucket:
        layouts = f"s3://{bucket}/cryo/{stream.chain_id}/{stream.dataset_uuid}/layout/"
        found["dagster/uri"] = MetadataValue.text(layouts)
    return {**found, "window_blocks": window_blocks(stream), "dataset_uuid": str(stream.dataset_uuid)}


def _compact(context: AssetExecutionContext, loaded: StreamRow, key: str) -> TraceError | None:
    """Compact one window and log what became of it on its partition; return its error if it failed."""
    runtime: Runtime = getattr(context.resources, RUNTIME)
    asset_of_window = compacted_key(loaded.chain_id, loaded.dataset_key)
    try:
        stream = runtime.jobs.stream_of(loaded.job_name, loaded.dataset_key)  # as applied now
        with _ONE_AT_A_TIME:
            result = runtime.compaction.compact(
                stream, BlockRange.from_key(key), manual=AUTOMATIC_TAG not in context.run.tags
            )
    except TraceError as error:
        context.log_event(failed_observation(asset_of_window, loaded, key, error))
        return error
    if result.manifest_key is None:
        context.log.info(f"window {key} of {loaded.dataset_key} was left alone: {result.reason}")
    else:
        metadata = result_metadata(runtime, result)
        context.log_event(
            AssetMaterialization(asset_of_window, partition=key, metadata=metadata, description=result.reason)
        )
    return None


def result_metadata(runtime: Runtime, result: "CompactionResult") -> dict[str, Any]:
    """Return the metadata of a compaction; the UI plots its numbers."""
    committed, compacted = runtime.due_windows.written_bytes(result.window.dataset_uuid)
    return {
        "files_before": result.files_before,
        "files_after": result.files_after,
        "bytes_before": result.bytes_before,
        "bytes_after": result.bytes_after,
        "rows": result.rows,
        "ranges": result.versions,
        "seconds": round(result.seconds, 3),
        "write_amplification": round((committed + compacted) / max(1, committed), 3),
        "dagster/partition_row_count": result.rows,
        "manifest": MetadataValue.path(f"s3://{runtime.settings.s3.bucket}/{result.manifest_key}"),
        "layout_id": str(result.layout_id),
    }


def failed_observation(key: AssetKey, stream: StreamRow, partition: str, error: TraceError) -> AssetObservation:
    """Return the observation of a window that was not compacted: the reason, and what happens next."""
    reason = redact(str(error)) or type(error).__name__
    by_hand = f"`trace-lite compact --job {stream.job_name} --stream {stream.dataset_key}`"
    if isinstance(error, InvalidInput):
        then = "it is compacted when it is due"
    elif isinstance(error, RETRYABLE):
        then = f"it is tried again, later after each failure; {by_hand} tries it at once"
    else:
        then = f"remove the cause, then {by_hand}; it is also tried again later"
    return AssetObservation(
        asset_key=key,
        partition=partition,
        description=f"not compacted: {reason}",
        metadata={"reason": MetadataValue.text(reason), "next": MetadataValue.text(then)},
    )
