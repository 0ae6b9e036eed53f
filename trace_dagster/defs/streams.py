"""One graph-backed asset per stream: plan the run's partitions, run Cryo for each range, seal.

The op ``cryo_range`` claims its range, starts the extraction and returns a handle on the stream of proven pieces. The
IO manager drains that stream into Parquet and commits it, so that the rows of a range are never all in memory.
``seal`` yields nothing, so that each range is materialized when it commits and not a second time at the end.
"""

from collections.abc import Iterator
from typing import Any

from dagster import (
    AssetKey,
    AssetsDefinition,
    BackfillPolicy,
    DynamicOut,
    DynamicOutput,
    DynamicPartitionsDefinition,
    In,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    Out,
    Output,
    graph_asset,
    op,
)

from trace_dagster.blocks import BlockRange
from trace_dagster.dagster_instance.mapping import mapping_key, range_of
from trace_dagster.dagster_instance.step_scope import at_step_end
from trace_dagster.dagster_instance.tags import NEWEST_FIRST_TAG, require_partitions
from trace_dagster.defs.failed_ranges import failure_observation
from trace_dagster.defs.table_metadata import table_metadata
from trace_dagster.errors import TraceError
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.messages.logs import component_log
from trace_dagster.planning.dispatcher import BATCH_TAG, MOST_RANGES_PER_RUN
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

_log = component_log("defs")

IO_MANAGER = "cryo_io_manager"
RUNTIME = "trace"
CLAIM_WAIT_SECONDS = 900.0
REFRESH_TAG = "trace/refresh"
"""Tag of a run or backfill: if it is ``true``, committed ranges are fetched again and compared."""


def asset_key(chain_id: int, dataset_key: str) -> AssetKey:
    """Return the asset key of a stream: ``[chain id, dataset key]``."""
    return AssetKey([str(chain_id), dataset_key])


def stream_asset(
    stream: StreamRow,
    partitions: DynamicPartitionsDefinition,
    ranges_per_run: int | None = None,
    bucket: str | None = None,
) -> AssetsDefinition:
    """Return the asset of one stream, which its job owns and whose objects lie in ``bucket``.

    A backfill of it starts one run per ``ranges_per_run`` partitions.
    """
    prefix = f"{stream.job_name}__{stream.dataset_key}"
    plan, cryo_range, seal = _plan_op(prefix), _range_op(prefix, stream), _seal_op(prefix)

    @graph_asset(
        name=stream.dataset_key,
        key_prefix=str(stream.chain_id),
        group_name=stream.job_name,
        partitions_def=partitions,
        backfill_policy=BackfillPolicy.multi_run(ranges_per_run or MOST_RANGES_PER_RUN),
        description=_description(stream),
        kinds={"cryo", "parquet", "s3"},
        tags={"trace/job": stream.job_name, "trace/dataset": stream.dataset.name},
        owners=[f"team:{stream.job_name}"],
        metadata={
            **table_metadata(stream, bucket),
            "dataset_uuid": str(stream.dataset_uuid),
            "chain_id": stream.chain_id,
            "cryo_dataset_name": stream.dataset.name,
            "chunk_size": stream.chunk_size,
            "config_hash": stream.config_hash,
            "verify": stream.verify,
        },
    )
    def stream_graph() -> Any:
        return seal(plan().map(cryo_range).collect())

    return stream_graph


def _description(stream: StreamRow) -> str:
    end = stream.to_block if stream.to_block is not None else "the head"
    key = ", ".join(stream.dataset.natural_key) or "none"
    return (
        f"Cryo `{stream.dataset.name}` of chain {stream.chain_id}, blocks {stream.from_block} to {end},"
        f" {stream.chunk_size} blocks per partition. Natural key: {key}."
    )


def _plan_op(prefix: str) -> OpDefinition:
    @op(
        name=f"{prefix}__plan",
        out=DynamicOut(Nothing, is_required=False),
        description="One output per partition of this run.",
    )
    def plan(context: OpExecutionContext) -> Iterator[DynamicOutput[None]]:
        require_partitions(context.job_name, context.run.tags)
        for key in context.partition_keys:
            yield DynamicOutput(None, mapping_key=mapping_key(BlockRange.from_key(key)))

    return plan


def _range_op(prefix: str, spec: StreamRow) -> OpDefinition:
    @op(
        name=f"{prefix}__cryo_range",
        ins={"planned": In(Nothing)},  # the mapping key names the range; a value would be stored, loaded and logged
        out=Out(object, io_manager_key=IO_MANAGER),
        required_resource_keys={RUNTIME},
        tags={NEWEST_FIRST_TAG: "true"} if spec.newest_first else None,
        description="Claim one block range and run Cryo for it; the IO manager commits the rows.",
    )
    def cryo_range(context: OpExecutionContext) -> Iterator[Any]:
        """Yield a RangeExtraction; (asset key, publication) if the range was committed before; else None.

        If the range cannot be started, yield an observation of its partition with the reason, and raise.
        """
        block_range = range_of(str(context.get_mapping_key()))
        try:
            started = start(context, block_range)
        except TraceError as error:
            yield failure_observation(asset_key(spec.chain_id, spec.dataset_key), spec, block_range, error)
            raise
        yield Output(started)

    def start(context: OpExecutionContext, block_range: BlockRange) -> object:
        runtime: Runtime = getattr(context.resources, RUNTIME)
        claimed = runtime.ingester.claim(
            spec,
            block_range,
            context.run_id,
            wait_seconds=CLAIM_WAIT_SECONDS,
            refresh=context.run.tags.get(REFRESH_TAG) == "true",
            manual=BATCH_TAG not in context.run.tags,
        )
        if isinstance(claimed, ClaimedRange):
            extraction = runtime.ingester.start(claimed)
            at_step_end(extraction.close)
            return extraction
        reason = "failed before, waiting, or held elsewhere" if claimed is None else "committed already"
        _log.event("skipped", job=spec.job_name, dataset_key=spec.dataset_key, block_range=block_range, reason=reason)
        return None if claimed is None else (asset_key(spec.chain_id, spec.dataset_key), claimed)

    return cryo_range


def _seal_op(prefix: str) -> OpDefinition:
    @op(
        name=f"{prefix}__seal",
        ins={"ranges": In(Nothing)},
        out=Out(Nothing, is_required=False, io_manager_key=IO_MANAGER),
        description="Every range of this run is committed.",
    )
    def seal() -> Iterator[Any]:
        yield from ()

    return seal
