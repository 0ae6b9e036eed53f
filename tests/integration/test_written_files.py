"""What every Parquet file of rows states, whoever wrote it: a commit, a compaction or a template."""

from __future__ import annotations

from uuid import uuid4, uuid5

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.committed import FULL, commit_rows
from tests.support.compaction import window_of
from tests.support.registry import apply, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.compaction.hash_index import FILE_NAME as HASHES
from trace_dagster.engine.columns import row_order
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.registry.jobs import Jobs

pytestmark = pytest.mark.integration

NAMES = ("blocks", "transactions", "logs", "geth_calls", "address_appearances")
SPAN = BlockRange(0, 20)


@pytest.fixture
def lake(database, store):
    """Commit and compact a window of each dataset, and commit a derived one; return the streams."""
    text = "\n  ".join(f"{name}: {{cryo_dataset_name: {name}}}" for name in NAMES)
    streams = apply(database, job_text(to_block=SPAN.end, chunk=10, streams=text))
    for stream in streams.values():
        for span in SPAN.split(10):
            commit_rows(database, store, stream, span, FULL)
        Compactor(database, store).compact(window_of(stream, SPAN.start, SPAN.end))
    derived = uuid4()
    Jobs(database).add_derived(derived, 99, "holders", {})
    table = pa.table({"holder": pa.array([b"a", None], pa.large_binary()), "balance": [1.5, 2.5]})
    target = CommitTarget(
        derived, "holders", "holders", 99, SPAN, "derived", table.schema, prefix="derived", whole=True
    )
    rows = RangeRows([table], lambda: {"asked": "off", "level": "derived"}, {"name": "duckdb", "version": "1"})
    with ingesting(database, store) as ingest:
        ingest.commit_derived(derived, uuid5(derived, "task"), target, rows, "run")
    return streams


def test_every_file_states_field_ids_order_statistics_and_page_index(lake, store):
    order_of = {str(stream.dataset_uuid): list(row_order(stream.dataset)) for stream in lake.values()}
    kinds = set()
    for key in store.keys(""):
        if not key.endswith(".parquet") or key.endswith(HASHES):
            continue
        file = pq.ParquetFile(pa.BufferReader(store.get(key)[0]))
        ids = [field.metadata[b"PARQUET:field_id"] for field in file.schema_arrow]
        assert ids == [b"%d" % number for number in range(1, len(ids) + 1)], key
        order = order_of.get(key.split("/")[2], [])
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            assert [names_of(group)[each.column_index] for each in group.sorting_columns] == order, key
            if group.num_rows:
                kinds.add("layout" if "/layout/" in key else key.split("/")[0])
                assert without_statistics(group) == [], key
    assert kinds == {"cryo", "layout", "derived"}


def names_of(group: pq.RowGroupMetaData) -> list[str]:
    return [group.column(place).path_in_schema for place in range(group.num_columns)]


def without_statistics(group: pq.RowGroupMetaData) -> list[str]:
    """Return the columns that lack statistics or one of the two indexes of pages."""
    columns = [group.column(place) for place in range(group.num_columns)]
    return [
        each.path_in_schema
        for each in columns
        if not (each.statistics and each.statistics.has_null_count and each.has_offset_index and each.has_column_index)
    ]
