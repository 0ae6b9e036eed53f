"""Dagster's events of a commit."""

from __future__ import annotations

from typing import Any

from dagster import AssetKey, AssetMaterialization, MetadataValue

from trace_dagster.datasets.levels import lowered_blocks, lowered_sentence
from trace_dagster.registry.publications import Publication
from trace_dagster.registry.tasks import Lease


def materialization(key: AssetKey, published: Publication, lease: Lease | None = None) -> AssetMaterialization:
    """Return the materialization of one committed range. The UI plots its numbers.

    Its description is the one line about the commit in the run's log.
    """
    metadata = commit_metadata(published)
    if lease is not None:
        metadata |= {"task_id": str(lease.task_id), "attempt": lease.attempt, "lease_id": str(lease.token)}
    return AssetMaterialization(
        key, partition=published.block_range.key, metadata=metadata, description=_description(published)
    )


def _description(published: Publication) -> str:
    level = published.verification.get("level")
    words = f"{published.rows:,} rows of blocks {published.block_range}, {published.bytes:,} bytes, verified: {level}"
    if lowered := lowered_sentence(published.verification):
        words += f" ({lowered})"
    return words if published.created else f"{words}; committed before"


def commit_metadata(published: Publication) -> dict[str, Any]:
    """Return the metadata of a commit, in the order in which the UI shows it: size, cost, proof, then names."""
    metrics: dict[str, Any] = {
        name: value for name, value in published.metrics.items() if isinstance(value, int | float)
    }
    first: dict[str, Any] = {name: metrics.pop(name) for name in ("rpc_calls", "seconds", "blocks") if name in metrics}
    return {
        "rows": published.rows,
        "bytes": published.bytes,
        **first,
        "verification_level": str(published.verification.get("level")),
        "lowered_blocks": sum(lowered_blocks(published.verification).values()),
        **metrics,
        "generation": published.generation,
        "fresh": published.created,
        "dagster/partition_row_count": published.rows,
        "dagster/uri": MetadataValue.text(published.storage_ref),
        "manifest": MetadataValue.path(f"{published.storage_ref}_manifest.json"),
        "verification": MetadataValue.json(published.verification),
        "dataset_version": str(published.dataset_version),
    }
