"""Windows to compact, and the rows that readers see: every visible file a single time, without its masked blocks."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.window import Window
from trace_dagster.registry.catalog import EVERYTHING, Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.store.objects import ObjectStore

TARGET = 256 * 1024 * 1024


def window_of(stream: StreamSpec, start: int, end: int, target_bytes: int = TARGET) -> Window:
    return Window(
        dataset_uuid=stream.dataset_uuid,
        chain_id=stream.chain_id,
        dataset_key=stream.dataset_key,
        dataset_name=stream.dataset.name,
        block_range=BlockRange(start, end),
        target_bytes=target_bytes,
    )


def visible_rows(database: Database, store: ObjectStore, stream: StreamSpec, span: BlockRange = EVERYTHING) -> pa.Table:
    """Return the visible rows of a dataset's range, read as every reader has to."""
    tables = [stream.dataset.schema(stream.columns).empty_table()]
    for file in Catalog(database).files(stream.dataset_uuid, span):
        table = pq.read_table(pa.BufferReader(store.get(file.key)[0])).replace_schema_metadata(None)
        tables.append(_between(without(table, file.masked), span))
    return pa.concat_tables(tables).combine_chunks()


def without(table: pa.Table, masked: tuple[BlockRange, ...]) -> pa.Table:
    """Return the rows that are not masked."""
    for blocks in masked:
        inside = pc.and_(
            pc.greater_equal(table["block_number"], blocks.start), pc.less(table["block_number"], blocks.end)
        )
        table = table.filter(pc.invert(inside))
    return table


def _between(table: pa.Table, span: BlockRange) -> pa.Table:
    return table.filter(
        pc.and_(pc.greater_equal(table["block_number"], span.start), pc.less(table["block_number"], span.end))
    )


def files_of(database: Database, stream: StreamSpec) -> list[str]:
    """Return the keys of the files with visible rows, in block order."""
    return [file.key for file in Catalog(database).files(stream.dataset_uuid, EVERYTHING)]
