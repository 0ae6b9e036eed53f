"""The reason why a range failed, as an observation of its partition, which Dagster shows on the partition's page."""

from __future__ import annotations

from dagster import AssetKey, AssetObservation, MetadataValue

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import RETRYABLE
from trace_dagster.messages.redaction import redact
from trace_dagster.registry.streams import StreamSpec


def failure_observation(key: AssetKey, spec: StreamSpec, block_range: BlockRange, error: Exception) -> AssetObservation:
    """Return the observation of a range whose attempt ended with ``error``: the reason, and what happens next."""
    reason = redact(str(error)) or type(error).__name__
    return AssetObservation(
        asset_key=key,
        partition=block_range.key,
        description=f"not committed: {reason}",
        metadata={"reason": MetadataValue.text(reason), "next": MetadataValue.text(_next(spec, error))},
    )


def _next(spec: StreamSpec, error: Exception) -> str:
    retry = f"`trace-lite retry --job {spec.job_name} --stream {spec.dataset_key}`"
    if isinstance(error, RETRYABLE):
        return f"it is tried again, unless it used up its attempts: then {retry}"
    return f"remove the cause, then {retry}"
