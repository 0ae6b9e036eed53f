"""Metadata of a stream for Dagster's catalog: its name in SQL, its address, its columns and its level."""

from __future__ import annotations

from typing import Any

from dagster import MetadataValue, TableColumn, TableColumnConstraints, TableConstraints, TableSchema

from trace_dagster.datasets.chains import chain_of
from trace_dagster.datasets.reach import reach
from trace_dagster.planning.reachable import chain_lines, stream_line
from trace_dagster.registry.streams import StreamRow


def table_metadata(stream: StreamRow, bucket: str | None) -> dict[str, Any]:
    """Return the metadata under the names that Dagster's UI knows; without a bucket the address is left out."""
    found: dict[str, Any] = {"dagster/table_name": f"chain_{stream.chain_id}.{stream.dataset_key}"}
    if bucket:
        found["dagster/uri"] = MetadataValue.text(f"s3://{bucket}/cryo/{stream.chain_id}/{stream.dataset_uuid}/")
    return {**found, "dagster/column_schema": column_schema(stream), "reachable_level": reachable_level(stream)}


def reachable_level(stream: StreamRow) -> str:
    """Return the level that the stream's rows reach on its chain, and the blocks that stay below it."""
    chain = chain_of(stream.chain_id)
    found = reach(chain, stream.dataset, stream.from_block, stream.to_block)
    return "; ".join([stream_line(stream, found), *chain_lines(chain)])


def column_schema(stream: StreamRow) -> TableSchema:
    """Return the columns that the stream stores, with their Arrow types and the natural key."""
    key = stream.dataset.natural_key
    columns = [
        TableColumn(name, type=kind, constraints=TableColumnConstraints(nullable=name not in key))
        for name, kind in stream.dataset.stored_types(stream.columns).items()
    ]
    return TableSchema(columns, TableConstraints([f"one row per {', '.join(key)}"] if key else []))
