"""What Dagster is told of a commit."""

from __future__ import annotations

from typing import Any

from dagster import AssetKey, AssetMaterialization, MetadataValue

from trace_dagster.registry.publications import Publication
from trace_dagster.registry.tasks import Lease


def materialization(key: AssetKey, published: Publication, lease: Lease | None = None) -> AssetMaterialization:
    """The Dagster event of one committed range; numbers become plots in the UI."""
    metadata = commit_metadata(published)
    if lease is not None:
        metadata |= {"task_id": str(lease.task_id), "attempt": lease.attempt, "lease_id": str(lease.token)}
    return AssetMaterialization(key, partition=published.block_range.key, metadata=metadata)


def commit_metadata(published: Publication) -> dict[str, Any]:
    """What is shown of a commit, whoever materializes it."""
    metadata: dict[str, Any] = {
        "rows": published.rows,
        "bytes": published.bytes,
        "generation": published.generation,
        "dataset_version": str(published.dataset_version),
        "manifest": MetadataValue.path(f"{published.storage_ref}_manifest.json"),
        "verification": MetadataValue.json(published.verification),
        "verification_level": str(published.verification.get("level")),
        "fresh": published.created,
    }
    metadata |= {name: value for name, value in published.metrics.items() if isinstance(value, int | float)}
    return metadata
