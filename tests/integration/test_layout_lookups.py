"""A compaction leaves summaries and a hash index that find every row of its files."""

import duckdb
import pyarrow.compute as pc
import pytest

from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.compaction import files_of, visible_rows, window_of
from tests.support.registry import apply, assert_registry_sound, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.compaction.layout import LayoutFiles
from trace_dagster.errors import Unavailable
from trace_dagster.layout_manifest import decode_layout
from trace_dagster.query.hash_lookup import blocks_of
from trace_dagster.registry.conditions import HASHED_COLUMNS
from trace_dagster.registry.summaries import SUMMARIZED_COLUMNS, files_that_may_contain

pytestmark = pytest.mark.integration

RARE = b"\x77" * 20


@pytest.fixture
def stream(database, store):
    """A stream of logs with eight ranges. Only the fifth one has logs of RARE."""
    stream = apply(database, job_text(streams="logs: {cryo_dataset_name: logs}", chunk=20))["logs"]
    for number in range(8):
        span = BlockRange(number * 20, number * 20 + 20)
        rows = made_up_rows(stream, span, address=RARE) if number == 4 else None
        commit_rows(database, store, stream, span, FULL, rows)
    return stream


def compact(database, store, stream):
    """Compact to files of a few ranges; return the layout's manifest."""
    result = Compactor(database, store).compact(window_of(stream, 0, 160, target_bytes=30_000))
    return decode_layout(store.get(result.manifest_key)[0])


def may_contain(database, stream, **wanted):
    with database.transaction() as session:
        return files_that_may_contain(session, files_of(database, stream), wanted)


def test_every_value_is_found_in_the_files_that_have_it(database, store, stream):
    manifest = compact(database, store, stream)
    assert [file.key for file in manifest.files] == files_of(database, stream)
    assert len(manifest.files) > 2
    for file in manifest.files:
        rows = visible_rows(database, store, stream, BlockRange(file.min_block, file.max_block + 1))
        for column in SUMMARIZED_COLUMNS:
            for value in rows[column].unique().drop_null().to_pylist():
                assert file.key in may_contain(database, stream, **{column: [value]})
    assert_registry_sound(database, store)


def test_a_rare_address_leaves_the_other_files_out(database, store, stream):
    manifest = compact(database, store, stream)
    (holder,) = [file.key for file in manifest.files if file.min_block <= 80 <= file.max_block]
    assert may_contain(database, stream, address=[RARE]) == [holder]
    assert may_contain(database, stream, address=[b"\x78" * 20]) == []


@pytest.mark.parametrize("column", HASHED_COLUMNS)
def test_every_hash_of_a_layout_is_in_its_index(database, store, stream, tmp_path, column):
    index = compact(database, store, stream).hash_index
    path = tmp_path / "hashes.parquet"
    path.write_bytes(store.read(index.key))
    rows = visible_rows(database, store, stream)
    for value in rows[column].unique().drop_null().to_pylist():
        blocks = rows.filter(pc.equal(rows[column], value))["block_number"].unique().to_pylist()
        assert blocks_of(duckdb.default_connection(), [str(path)], [value]) == blocks
    with database.connection() as connection:
        (row,) = connection.execute("select object_key, bytes, sha256, row_count from trace.hash_indexes").fetchall()
    assert tuple(row.values()) == (index.key, index.bytes, index.sha256, index.rows)


def test_a_failed_compaction_leaves_no_index(database, store, stream, monkeypatch):
    def fails(*_):
        raise Unavailable("no answer")

    monkeypatch.setattr(LayoutFiles, "put_manifest", fails)
    with pytest.raises(Unavailable):
        compact(database, store, stream)
    assert [key for key in store.keys("") if "/layout/" in key] == []
