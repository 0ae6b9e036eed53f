"""Streams one range's tables into Parquet objects, and checks the limits while it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trace_dagster.errors import CapExceeded
from trace_dagster.manifest import ManifestFile
from trace_dagster.store.caps import Caps
from trace_dagster.store.objects import ObjectStore, Upload

ROW_GROUP_BYTES = 16 * 1024 * 1024
SAMPLE_ROWS = 2048
"""Number of a file's first rows that decide which columns get a dictionary."""

_FIELD_ID = "PARQUET:field_id"


@dataclass(slots=True)
class BlockSpan:
    """The first and last block of the rows that were added; None without rows or block numbers."""

    first: int | None = None
    last: int | None = None

    def add(self, rows: pa.Table) -> None:
        """Add rows of any blocks."""
        if "block_number" not in rows.column_names or not rows.num_rows:
            return
        span = pc.min_max(rows["block_number"]).as_py()
        self.first = span["min"] if self.first is None else min(self.first, span["min"])
        self.last = span["max"] if self.last is None else max(self.last, span["max"])


@dataclass(slots=True)
class _OpenFile:
    key: str
    upload: Upload
    writer: pq.ParquetWriter
    rows: int = 0
    blocks: BlockSpan = field(default_factory=BlockSpan)


class RangeWriter:
    """Appends tables to Parquet objects ``key_of(part)``. Starts a new part before a file exceeds its limit.

    ``order`` are the columns that the rows are sorted by; files state it. Memory is one row group and two upload parts.
    After any error the caller must call :meth:`abort`.
    """

    def __init__(
        self,
        store: ObjectStore,
        schema: pa.Schema,
        key_of: Callable[[int], str],
        caps: Caps,
        order: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._schema = schema
        self._order = order
        self._key_of = key_of
        self._caps = caps
        self._open: _OpenFile | None = None
        self._done: list[ManifestFile] = []
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self.etags: dict[str, str | None] = {}
        """The object store's ETag of each finished file, by key."""

    def write(self, table: pa.Table) -> None:
        """Append rows. Raises CapExceeded if the range exceeds a limit."""
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush_row_group()

    def finish(self) -> list[ManifestFile]:
        """Complete the last file and return all files. An empty range becomes one file with the schema and no rows."""
        self._flush_row_group()
        self._close_file()
        return self._done

    def abort(self) -> None:
        """Cancel the unfinished file and delete the finished ones. Never raises CapExceeded."""
        if self._open is not None:
            self._open.upload.abort()
            self._open = None
        self._store.delete(file.key for file in self._done)

    def _flush_row_group(self) -> None:
        group = pa.concat_tables(self._pending) if self._pending else self._schema.empty_table()
        self._pending, self._pending_bytes = [], 0
        for piece in _pieces(group):
            self._append(piece)
        if self._open is None:
            self._append(group)

    def _append(self, group: pa.Table) -> None:
        if self._open is not None and self._open.upload.bytes_written + group.nbytes > self._caps.bytes_per_file:
            self._close_file()
        if self._open is None:
            self._open = self._start_file(group)
        self._open.writer.write_table(group, row_group_size=max(1, group.num_rows))
        self._open.rows += group.num_rows
        self._open.blocks.add(group)
        self._check_caps(self._open)

    def _start_file(self, group: pa.Table) -> _OpenFile:
        part = len(self._done)
        if part >= self._caps.files_per_range:
            raise CapExceeded(
                "this range needs more Parquet files than are allowed: use a smaller chunk_size",
                files=self._caps.files_per_range,
            )
        key = self._key_of(part)
        upload = self._store.upload(key)
        return _OpenFile(key, upload, self._writer(upload, group))

    def _writer(self, upload: Upload, first: pa.Table) -> pq.ParquetWriter:
        return parquet_writer(pa.PythonFile(upload, mode="w"), self._schema, first, self._order)

    def _close_file(self) -> None:
        file = self._open
        if file is None:
            return
        file.writer.close()
        self._check_caps(file)
        sha256 = file.upload.finish()
        self._open = None
        self.etags[file.key] = file.upload.etag
        self._done.append(
            ManifestFile(
                key=file.key,
                bytes=file.upload.bytes_written,
                sha256=sha256,
                rows=file.rows,
                min_block=file.blocks.first,
                max_block=file.blocks.last,
            )
        )

    def _check_caps(self, file: _OpenFile) -> None:
        total = file.upload.bytes_written + sum(done.bytes for done in self._done)
        if file.upload.bytes_written > self._caps.bytes_per_file or total > self._caps.bytes_per_range:
            raise CapExceeded(
                "this range has more bytes than are allowed: use a smaller chunk_size",
                bytes=total,
                allowed=self._caps.bytes_per_range,
            )


def encoded_bytes(table: pa.Table) -> int:
    """Return the size in bytes of a table as one Parquet file. It is written to memory only."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema, table) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
    return int(sink.tell())


def parquet_writer(
    sink: pa.NativeFile, schema: pa.Schema, first: pa.Table, order: Sequence[str] = ()
) -> pq.ParquetWriter:
    """Return a writer for a file whose first rows are ``first`` and whose rows are sorted by ``order``.

    There are no bloom filters: DuckDB 1.5 loses rows where a binary column has one (tests/unit/test_parquet_files.py).
    """
    return pq.ParquetWriter(
        sink,
        _with_field_ids(schema),
        compression="zstd",
        compression_level=1,
        use_dictionary=_repeating(first),
        version="2.6",
        write_statistics=True,
        write_page_index=True,
        sorting_columns=pq.SortingColumn.from_ordering(schema, [(name, "ascending") for name in order]),
    )


def _with_field_ids(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose columns are numbered from 1. Table formats such as Iceberg know a column by its number."""
    return pa.schema(
        [field.with_metadata({_FIELD_ID: str(number)}) for number, field in enumerate(schema, 1)], schema.metadata
    )


def _repeating(rows: pa.Table) -> list[str]:
    """Return the columns whose values repeat. Only they get a dictionary.

    A dictionary of hashes takes longer to build than all the rest of the file, and is larger than the hashes.
    """
    sample = rows.slice(0, SAMPLE_ROWS)
    return [
        name
        for name, column in zip(sample.column_names, sample.columns, strict=True)
        if 2 * pc.count_distinct(column, mode="all").as_py() <= sample.num_rows
    ]


def _pieces(group: pa.Table) -> list[pa.Table]:
    """Split a table into row groups of about 16 MiB, so that a large table does not become one large row group."""
    if not group.num_rows:
        return []
    count = max(1, group.nbytes // ROW_GROUP_BYTES)
    rows = -(-group.num_rows // count)
    return [group.slice(start, rows) for start in range(0, group.num_rows, rows)]
