"""Whether the files of layouts say what the registry promises: each visible row is read a single time."""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trace_dagster.blocks import BlockRange
from trace_dagster.layout_manifest import LayoutManifest, decode_layout
from trace_dagster.registry.catalog import EVERYTHING, Catalog, LakeFile
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore


def assert_layouts_sound(database: Database, store: ObjectStore) -> None:
    """Check links, masks, manifests and leases of layouts, and that readers see each row of visible versions once."""
    _assert_links(database)
    _assert_masks(database)
    _assert_manifests(database, store)
    _assert_rows(database, store)


def rows(database: Database, statement: str) -> list[dict]:
    with database.connection() as connection:
        return connection.execute(statement).fetchall()


def _assert_links(database: Database) -> None:
    """A version is in its own files or in one file of one layout, and a lease belongs to an attempt."""
    mixed = rows(
        database,
        "select v.dataset_version from trace.dataset_versions v join trace.version_files l using (dataset_version)"
        " join trace.files f using (file_key) where v.visible and l.replaced_at is null group by 1"
        " having count(f.layout_id) > 0 and (count(f.layout_id) > 1 or count(*) > 1)",
    )
    assert mixed == []
    strange = rows(
        database,
        "select c.lease_token from trace.compactions c where c.lease_token is not null and not exists"
        " (select 1 from trace.layout_attempts a where a.layout_id = c.lease_token and a.ended_at is null)",
    )
    assert strange == []
    unknown = rows(
        database,
        "select y.layout_id from trace.layouts y left join trace.layout_attempts a using (layout_id)"
        " where a.ended_at is null",
    )
    assert unknown == []


def _assert_masks(database: Database) -> None:
    """A mask hides no visible version that is read from its file."""
    hidden = rows(
        database,
        "select f.file_key, v.block_range from trace.files f join trace.version_files l using (file_key)"
        " join trace.dataset_versions v using (dataset_version)"
        " where v.visible and l.replaced_at is null and f.masked_blocks && v.block_range",
    )
    assert hidden == []
    own = rows(database, "select file_key from trace.files where layout_id is null and not isempty(masked_blocks)")
    assert own == []


def _assert_manifests(database: Database, store: ObjectStore) -> None:
    """A layout with files has its manifest, which names them. Blocks that it names are read or masked."""
    layouts = rows(
        database,
        "select distinct y.* from trace.layouts y join trace.files f using (layout_id)",
    )
    for layout in layouts:
        data, _ = store.get(layout["manifest_key"])
        manifest = decode_layout(data, sha256=layout["manifest_sha256"])
        named = {file.key: file for file in manifest.files}
        assert manifest.layout_id == layout["layout_id"]
        _assert_hash_index(database, store, manifest)
        assert sum(file.rows for file in manifest.files) == layout["row_count"]
        _assert_hash_index(database, store, manifest)
        for file in rows(database, f"select * from trace.files where layout_id = '{layout['layout_id']}'"):
            assert named[file["file_key"]].sha256 == file["sha256"]
            linked = rows(
                database,
                "select v.dataset_version from trace.version_files l join trace.dataset_versions v"
                f" using (dataset_version) where l.file_key = '{file['file_key']}' and l.replaced_at is null"
                " and v.visible",
            )
            shown = {row["dataset_version"] for row in linked}
            masked = [BlockRange(each.lower, each.upper) for each in file["masked_blocks"]]
            for version in named[file["file_key"]].versions:
                span = BlockRange(version.range_start, version.range_end)
                is_masked = any(mask.start <= span.start and span.end <= mask.end for mask in masked)
                assert (version.dataset_version in shown) != is_masked or not shown


def _assert_hash_index(database: Database, store: ObjectStore, manifest: LayoutManifest) -> None:
    """The registry and the manifest name the same index, and the object is that one."""
    found = rows(
        database,
        "select object_key as key, bytes, sha256, row_count as rows from trace.hash_indexes"
        f" where layout_id = '{manifest.layout_id}'",
    )
    named = manifest.hash_index
    assert found == ([named.model_dump()] if named is not None else [])
    if named is not None:
        assert store.sha256(named.key) == named.sha256


def _assert_hash_index(database: Database, store: ObjectStore, manifest: LayoutManifest) -> None:
    found = rows(database, f"select * from trace.hash_indexes where layout_id = '{manifest.layout_id}'")
    assert [(row["object_key"], row["sha256"]) for row in found] == [
        (each.key, each.sha256) for each in [manifest.hash_index] if each is not None
    ]
    for row in found:
        data, _ = store.get(row["object_key"])
        assert (len(data), sha256(data).hexdigest()) == (row["bytes"], row["sha256"])


def _assert_rows(database: Database, store: ObjectStore) -> None:
    """Readers that leave out masked blocks see as many rows as the visible versions have."""
    for dataset in Catalog(database).datasets():
        if dataset.kind != "stream":
            continue
        found = 0
        for file in Catalog(database).files(dataset.dataset_uuid, EVERYTHING):
            found += len(unmasked_blocks(store, file))
        assert found == dataset.rows, (dataset.dataset_key, found, dataset.rows)


def unmasked_blocks(store: ObjectStore, file: LakeFile) -> pa.ChunkedArray:
    """Return the block number of each row of a file that is not masked."""
    data = store.get(file.key)[0]
    blocks = pq.read_table(pa.BufferReader(data), columns=["block_number"])["block_number"]
    for mask in file.masked:
        inside = pc.and_(pc.greater_equal(blocks, mask.start), pc.less(blocks, mask.end))
        blocks = blocks.filter(pc.invert(inside))
    return blocks
