"""Writes versions one after the other into files of a size; a file ends between two versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from trace_dagster.compaction.summaries import FileSummaries
from trace_dagster.registry.layouts import LayoutFile, SourceVersion
from trace_dagster.store.objects import ObjectStore, Upload
from trace_dagster.store.parquet import ROW_GROUP_BYTES, BlockSpan, parquet_writer


class TableSink(Protocol):
    """Takes the rows that are written, such as an index of them."""

    def add(self, table: pa.Table) -> None:
        """Take the next rows."""


@dataclass(slots=True)
class _GrowingFile:
    key: str
    upload: Upload
    versions: list[SourceVersion] = field(default_factory=list)
    writer: pq.ParquetWriter | None = None
    rows: int = 0
    pending: list[pa.Table] = field(default_factory=list)
    pending_bytes: int = 0
    flushed_bytes: int = 0
    blocks: BlockSpan = field(default_factory=BlockSpan)
    summaries: FileSummaries = field(default_factory=FileSummaries)

    @property
    def size(self) -> int:
        """Bytes of the file if it ended now. Rows that are not encoded yet count by the ratio of the others; before
        the first row group, versions count with the bytes of their own files.
        """
        if not self.flushed_bytes:
            return sum(map(_bytes_of, self.versions)) or self.pending_bytes // 4
        ratio = self.upload.bytes_written / self.flushed_bytes
        return self.upload.bytes_written + int(self.pending_bytes * ratio)


class LayoutWriter:
    """Writes the files of a layout. Memory is one row group and two upload parts.

    ``key_of`` names file n. ``written`` gets the rows of all files, ``finished`` each file that is complete. After an
    error the caller must call :meth:`abort`.
    """

    def __init__(
        self,
        store: ObjectStore,
        key_of: Callable[[int], str],
        target_bytes: int,
        written: TableSink,
        finished: Callable[[LayoutFile, pa.Schema], None],
    ) -> None:
        self._store = store
        self._key_of = key_of
        self._target_bytes = target_bytes
        self._written = written
        self._finished = finished
        self._open: _GrowingFile | None = None
        self._schema: pa.Schema = pa.schema([])
        self._order: Sequence[str] = ()
        self.files: list[LayoutFile] = []
        self._done_bytes = 0

    @property
    def written_bytes(self) -> int:
        """Bytes written so far."""
        return self._done_bytes + (self._open.upload.bytes_written if self._open is not None else 0)

    def start_group(self, schema: pa.Schema, order: Sequence[str]) -> None:
        """End the file; the versions that follow have this schema and are sorted by these columns."""
        self.finish()
        self._schema, self._order = schema, order

    def start(self, version: SourceVersion) -> None:
        """Begin a version. If that would make the file too large, it goes to the next one."""
        if self._open is not None and self._open.size + _bytes_of(version) // 2 > self._target_bytes:
            self.finish()
        if self._open is None:
            key = self._key_of(len(self.files))
            self._open = _GrowingFile(key, self._store.upload(key))
        self._open.versions.append(version)

    def write(self, table: pa.Table) -> None:
        """Append rows of the version that was started."""
        assert self._open is not None
        if not table.num_rows:
            return
        self._open.pending.append(table)
        self._open.pending_bytes += table.nbytes
        if self._open.pending_bytes >= ROW_GROUP_BYTES:
            self._flush(self._open)

    def finish(self) -> None:
        """Complete the file, if one is open."""
        if (file := self._open) is None:
            return
        if file.pending or file.writer is None:
            self._flush(file)
        assert file.writer is not None
        file.writer.close()
        sha256 = file.upload.finish()
        self._open = None
        self._done_bytes += file.upload.bytes_written
        self.files.append(
            LayoutFile(
                key=file.key,
                bytes=file.upload.bytes_written,
                sha256=sha256,
                rows=file.rows,
                min_block=file.blocks.first,
                max_block=file.blocks.last,
                etag=file.upload.etag,
                versions=tuple(file.versions),
                summaries=file.summaries.finish(),
            )
        )
        self._finished(self.files[-1], self._schema)

    def abort(self) -> None:
        """Cancel the unfinished file. The finished ones stay, until the caller deletes them."""
        if self._open is not None:
            self._open.upload.abort()
            self._open = None

    def _flush(self, file: _GrowingFile) -> None:
        group = pa.concat_tables(file.pending) if file.pending else self._schema.empty_table()
        file.pending, file.pending_bytes = [], 0
        if file.writer is None:
            sink = pa.PythonFile(file.upload, mode="w")
            file.writer = parquet_writer(sink, self._schema, group, self._order)
        if not group.num_rows:
            return
        file.writer.write_table(group, row_group_size=group.num_rows)
        file.summaries.add(group)
        self._written.add(group)
        file.rows += group.num_rows
        file.flushed_bytes += group.nbytes
        file.blocks.add(group)


def _bytes_of(version: SourceVersion) -> int:
    return 0 if version.is_compacted else sum(file.bytes for file in version.files)
