"""Writes a layout's hash index: the sorted hash prefixes of its rows and their blocks, in one small Parquet object.

``query/hash_lookup.py`` finds the block of a hash in it. Rows are collected in DuckDB, which sorts more than memory
holds with temporary files.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trace_dagster.errors import Unavailable
from trace_dagster.query.syntax import first_line
from trace_dagster.registry.conditions import HASHED_COLUMNS
from trace_dagster.registry.layouts import HashIndex
from trace_dagster.store.objects import ObjectStore

FILE_NAME = "hashes.parquet"

_SCHEMA = pa.schema([("hash_prefix", pa.int64()), ("block_number", pa.int64())])
_GROUP_ROWS = 16_384
"""Rows that a look-up reads: 130 KiB."""
_INSERTED_ROWS = 500_000
_BATCH_ROWS = 8 * _GROUP_ROWS
_MEMORY = "128MiB"


class HashIndexWriter:
    """Collects the hashes of a layout's rows, and writes them sorted. Memory is bounded. The caller closes it."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="trace-hashes-")
        self._connection = duckdb.connect(
            config={
                "memory_limit": _MEMORY,
                "threads": "1",
                "temp_directory": self._folder.name,
                "preserve_insertion_order": "false",
            }
        )
        self._waiting: list[pa.Table] = []
        self._connection.execute("set enable_progress_bar = false")
        self._connection.execute("create table hashes (hash_prefix bigint, block_number bigint)")

    def add(self, table: pa.Table) -> None:
        """Take the next rows. Their columns may differ from those of earlier rows.

        Raises Unavailable if there is no room for temporary files.
        """
        for name in HASHED_COLUMNS:
            if name in table.column_names:
                self._waiting.append(_prefixes(table, name))
        if sum(each.num_rows for each in self._waiting) >= _INSERTED_ROWS:
            self._insert()

    def finish(self, store: ObjectStore, key: str) -> HashIndex | None:
        """Write the index as an object; None, and no object, if there are no hashes.

        Raises Unavailable if the object store does not take it, or if there is no room for temporary files.
        """
        self._insert()
        try:
            sorted_rows = self._connection.execute("from hashes order by all").to_arrow_reader(_BATCH_ROWS)
            return _write(store, key, sorted_rows)
        except duckdb.Error as error:
            raise _no_room(error) from None

    def close(self) -> None:
        """Free memory and temporary files. May be called more than once."""
        self._connection.close()
        self._folder.cleanup()

    def _insert(self) -> None:
        rows, self._waiting = pa.concat_tables([_SCHEMA.empty_table(), *self._waiting]), []
        try:
            self._connection.from_arrow(rows).insert_into("hashes")
        except duckdb.Error as error:
            raise _no_room(error) from None


def _write(store: ObjectStore, key: str, batches: pa.RecordBatchReader) -> HashIndex | None:
    upload = store.upload(key)
    rows = 0
    try:
        with _writer(pa.PythonFile(upload, mode="w")) as writer:
            for batch in batches:
                table = _without_repeats(pa.Table.from_batches([batch]).cast(_SCHEMA))
                writer.write_table(table, row_group_size=_GROUP_ROWS)
                rows += table.num_rows
        if not rows:
            upload.abort()
            return None
        return HashIndex(key=key, sha256=upload.finish(), bytes=upload.bytes_written, rows=rows, etag=upload.etag)
    except BaseException:
        upload.abort()
        raise


def _writer(sink: pa.NativeFile) -> pq.ParquetWriter:
    """Return a writer that encodes both columns as differences: half the bytes, and nothing left to compress."""
    return pq.ParquetWriter(
        sink,
        _SCHEMA,
        compression="none",
        use_dictionary=False,
        column_encoding=dict.fromkeys(_SCHEMA.names, "DELTA_BINARY_PACKED"),
        sorting_columns=pq.SortingColumn.from_ordering(_SCHEMA, [(name, "ascending") for name in _SCHEMA.names]),
    )


def _prefixes(table: pa.Table, name: str) -> pa.Table:
    """Return the prefix and block of each hash of a column that is not null."""
    rows = table.select([name, "block_number"])
    if rows[name].null_count:
        rows = rows.filter(pc.is_valid(rows[name]))
    starts = pc.binary_slice(rows[name].combine_chunks(), 0, 8).cast(pa.binary(8))
    columns = [starts.view(pa.int64()), rows["block_number"].combine_chunks().cast(pa.int64())]
    return _without_repeats(pa.Table.from_arrays(columns, schema=_SCHEMA))


def _without_repeats(rows: pa.Table) -> pa.Table:
    """Return the rows that differ from the one before them."""
    if rows.num_rows < 2:
        return rows
    changes = [pc.not_equal(rows[name].slice(1), rows[name].slice(0, rows.num_rows - 1)) for name in _SCHEMA.names]
    kept = pa.chunked_array([pa.array([True]), *pc.or_(*changes).chunks])
    return rows if pc.all(kept).as_py() else rows.filter(kept)


def _no_room(error: duckdb.Error) -> Unavailable:
    return Unavailable(
        "the hashes of a window cannot be sorted: make room in the temporary directory (TMPDIR)",
        reason=first_line(error),
    )
