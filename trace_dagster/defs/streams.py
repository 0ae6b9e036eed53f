"""One graph-backed asset per stream: plan the run's partitions, one Cryo op per range, seal.

The op claims its range and hands the claim to the IO manager, which extracts, verifies and commits:
rows flow through, they are never all in memory. ``seal`` yields nothing, so that each range is
materialized when it commits and not a second time at the end.
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
    graph_asset,
    op,
)

from trace_dagster.blocks import BlockRange
from trace_dagster.dagster_instance.mapping import mapping_key, range_of
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.planning.dispatcher import BATCH_TAG, MOST_RANGES_PER_RUN
from trace_dagster.registry.publications import Publication
from trace_dagster.registry.streams import StreamRow, StreamSpec
from trace_dagster.runtime import Runtime

IO_MANAGER = "cryo_io_manager"
RUNTIME = "trace"
CLAIM_WAIT_SECONDS = 900.0
REFRESH_TAG = "trace/refresh"
"""Set to ``true`` on a run or backfill: committed ranges are fetched again and compared."""


def asset_key(chain_id: int, dataset_key: str) -> AssetKey:
    """``[chain id, dataset key]``."""
    return AssetKey([str(chain_id), dataset_key])


def stream_asset(
    stream: StreamRow, partitions: DynamicPartitionsDefinition, ranges_per_run: int | None = None
) -> AssetsDefinition:
    """The asset of one stream; a backfill of it starts a run per ``ranges_per_run`` partitions."""
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
        metadata={
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
        for key in context.partition_keys:
            yield DynamicOutput(None, mapping_key=mapping_key(BlockRange.from_key(key)))

    return plan


def _range_op(prefix: str, spec: StreamSpec) -> OpDefinition:

    @op(
        name=f"{prefix}__cryo_range",
        ins={"planned": In(Nothing)},  # the mapping key says all: a value would be stored, loaded and logged
        out=Out(object, io_manager_key=IO_MANAGER),
        required_resource_keys={RUNTIME},
        description="Claim one block range; the IO manager streams Cryo's rows for it into a commit.",
    )
    def cryo_range(context: OpExecutionContext) -> ClaimedRange | tuple[AssetKey, Publication] | None:
        runtime: Runtime = getattr(context.resources, RUNTIME)
        block_range = range_of(str(context.get_mapping_key()))
        claimed = runtime.ingest.claim(
            spec,
            block_range,
            context.run_id,
            wait_seconds=CLAIM_WAIT_SECONDS,
            refresh=context.run.tags.get(REFRESH_TAG) == "true",
            by_hand=BATCH_TAG not in context.run.tags,
        )
        if isinstance(claimed, ClaimedRange):
            return claimed
        if claimed is None:
            context.log.info(f"{block_range.key} is not this run's to do: held elsewhere, waiting, or failed before")
            return None
        context.log.info(f"{block_range.key} is committed already, nothing to do")
        return asset_key(spec.chain_id, spec.dataset_key), claimed

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
