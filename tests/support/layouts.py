"""A layout made by hand, as a compaction leaves it: one file with the rows of all visible versions of a window."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore


@dataclass(frozen=True)
class MadeLayout:
    """A layout with one file."""

    layout_id: UUID
    manifest_key: str
    file_key: str


def lay_out(
    database: Database, store: ObjectStore, dataset_uuid: UUID, window: BlockRange, *, row_group_rows: int = 64
) -> MadeLayout:
    """Write the visible rows of a window as one file and make it the current one of their versions."""
    with database.connection() as connection:
        versions = connection.execute(
            "select v.dataset_version, lower(v.block_range) as first, upper(v.block_range) as after,"
            " d.chain_id, d.source, array_agg(l.file_key"
            " order by coalesce(substring(l.file_key from '-p([0-9]+)\\.parquet$')::int, 0)) as keys"
            " from trace.dataset_versions v join trace.datasets d using (dataset_uuid)"
            " join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null"
            " where v.dataset_uuid = %s and v.visible and v.block_range <@ int8range(%s, %s)"
            " group by v.dataset_version, d.chain_id, d.source order by lower(v.block_range)",
            (dataset_uuid, window.start, window.end),
        ).fetchall()
    rows = pa.concat_tables([_rows(store, row["keys"], BlockRange(row["first"], row["after"])) for row in versions])
    sink = io.BytesIO()
    pq.write_table(rows, sink, row_group_size=row_group_rows, compression="zstd")
    data, layout = sink.getvalue(), uuid4()
    span = f"{window.start}_{window.end}"
    folder = f"cryo/{versions[0]['chain_id']}/{dataset_uuid}/layout/{span}/{layout}/"
    made = MadeLayout(
        layout, f"{folder}_manifest.json", f"{folder}{versions[0]['source']}_{span}-l{layout.hex[:12]}.parquet"
    )
    manifest = json.dumps({"layout_id": str(layout), "versions": [str(row["dataset_version"]) for row in versions]})
    store.put_if_absent(made.file_key, data)
    store.put_if_absent(made.manifest_key, manifest.encode())
    etag = store.stored_now(made.file_key).etag
    with database.connection() as connection:
        connection.execute(
            "insert into trace.layouts (layout_id, dataset_uuid, block_window, manifest_key, manifest_sha256,"
            " row_count, byte_count) values (%s, %s, int8range(%s, %s), %s, %s, %s, %s)",
            (
                layout, dataset_uuid, window.start, window.end, made.manifest_key,
                sha256(manifest.encode()).hexdigest(), rows.num_rows, len(data),
            ),
        )  # fmt: skip
        connection.execute(
            "insert into trace.files (file_key, bytes, sha256, row_count, min_block, max_block, etag, layout_id)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                made.file_key,
                len(data),
                sha256(data).hexdigest(),
                rows.num_rows,
                window.start,
                window.end - 1,
                etag,
                layout,
            ),
        )
        for row in versions:
            connection.execute(
                "update trace.version_files set replaced_at = now() where dataset_version = %s and replaced_at is null",
                (row["dataset_version"],),
            )
            connection.execute(
                "insert into trace.version_files (dataset_version, file_key) values (%s, %s)",
                (row["dataset_version"], made.file_key),
            )
    return made


def _rows(store: ObjectStore, keys: list[str], block_range: BlockRange) -> pa.Table:
    tables = [pq.read_table(pa.BufferReader(store.get(key)[0])) for key in keys]
    inside = (pa.compute.field("block_number") >= block_range.start) & (
        pa.compute.field("block_number") < block_range.end
    )
    return pa.concat_tables(tables).filter(inside)
