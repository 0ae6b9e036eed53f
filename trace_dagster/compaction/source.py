"""Reads the rows of versions from the files that hold them now, small objects ahead of their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import Corrupt, TraceError, Unavailable
from trace_dagster.registry.layouts import SourceFile, SourceVersion
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.scan import READ_ERRORS, row_group_spans

SMALL_BYTES = 16 * 1024 * 1024
"""Files up to this size are fetched whole and ahead; of larger ones, one row group at a time is read."""

_FETCHES = 12
_BYTES_AHEAD = 64 * 1024 * 1024


class VersionReader:
    """Reads the rows of neighbouring versions, in order. Memory is the objects fetched ahead and one row group."""

    def __init__(self, store: ObjectStore, versions: Sequence[SourceVersion], schema: pa.Schema) -> None:
        self._store = store
        self._versions = versions
        self._schema = schema
        self._shared: _SharedFile | None = None

    def tables(self) -> Generator[tuple[SourceVersion, pa.Table], None, None]:
        """Yield each version's rows as tables, at least one for each version."""
        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="compaction-fetch") as threads:
            try:
                for version, fetched in self._fetched(threads):
                    yield version, self._schema.empty_table()
                    for file, data in fetched:
                        yield from ((version, table) for table in self._file(version, file, data))
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _fetched(
        self, threads: ThreadPoolExecutor
    ) -> Iterator[tuple[SourceVersion, list[tuple[SourceFile, Future[bytes | None] | None]]]]:
        """Yield versions with their files, whose small objects are under way. The next ones are started before."""
        waiting: deque[tuple[SourceVersion, list[tuple[SourceFile, Future[bytes | None] | None]]]] = deque()
        size = 0
        for version in self._versions:
            small = [file for file in version.files if not file.layout_id and file.bytes <= SMALL_BYTES]
            waiting.append(
                (
                    version,
                    [
                        (file, threads.submit(self._store.read, file.key) if file in small else None)
                        for file in version.files
                    ],
                )
            )
            size += _small_bytes(version)
            while len(waiting) > _FETCHES or (size > _BYTES_AHEAD and len(waiting) > 1):
                size -= _small_bytes(waiting[0][0])
                yield waiting.popleft()
        yield from waiting

    def _file(self, version: SourceVersion, file: SourceFile, data: Future[bytes | None] | None) -> Iterator[pa.Table]:
        if file.layout_id is not None:
            yield from self._of_layout(version, file)
            return
        fetched = data.result() if data is not None else None
        if data is not None and fetched is None:
            raise missing(version, file)
        with self._reading(version, file):
            opened = pq.ParquetFile(pa.BufferReader(fetched) if fetched is not None else self._open(file))
            for number in range(opened.num_row_groups):
                yield self._as_stored(version, opened.read_row_group(number))

    def _of_layout(self, version: SourceVersion, file: SourceFile) -> Iterator[pa.Table]:
        with self._reading(version, file):
            if self._shared is None or self._shared.key != file.key:
                self._shared = _SharedFile(file.key, pq.ParquetFile(self._open(file)))
            for table in self._shared.tables(version.block_range):
                yield self._as_stored(version, table)

    def _open(self, file: SourceFile) -> pa.NativeFile:
        return self._store.filesystem().open_input_file(f"{self._store.access.bucket}/{file.key}")

    def _as_stored(self, version: SourceVersion, table: pa.Table) -> pa.Table:
        if not table.schema.equals(self._schema):
            raise Corrupt(
                "a file has other columns than were committed: run `trace-lite verify --repair`",
                dataset_version=version.dataset_version,
                range=version.block_range,
            )
        return table.replace_schema_metadata(None)

    @contextmanager
    def _reading(self, version: SourceVersion, file: SourceFile) -> Iterator[None]:
        """Raise Corrupt if the object is missing or no Parquet, and Unavailable if the bucket does not serve it."""
        try:
            yield
        except READ_ERRORS as error:
            if self._store.stored_now(file.key) is None:
                raise missing(version, file) from None
            raise Unavailable(
                "a committed file cannot be read: try again, or run `trace-lite verify`",
                file=file.key,
                reason=type(error).__name__,
            ) from None


class _SharedFile:
    """A layout's file that several versions are read from: its last row group is kept."""

    def __init__(self, key: str, opened: pq.ParquetFile) -> None:
        self.key = key
        self._opened = opened
        self._spans = row_group_spans(opened.metadata)
        self._kept: tuple[int, pa.Table] = (-1, None)

    def tables(self, blocks: BlockRange) -> Iterator[pa.Table]:
        """Yield the rows of a block range."""
        for number, span in enumerate(self._spans):
            if span is not None and span[0] < blocks.end and span[1] >= blocks.start:
                table = self._group(number)
                inside = pc.and_(
                    pc.greater_equal(table["block_number"], blocks.start), pc.less(table["block_number"], blocks.end)
                )
                yield table.filter(inside)

    def _group(self, number: int) -> pa.Table:
        if self._kept[0] != number:
            self._kept = (number, self._opened.read_row_group(number))
        return self._kept[1]


def _small_bytes(version: SourceVersion) -> int:
    return sum(file.bytes for file in version.files if not file.layout_id and file.bytes <= SMALL_BYTES)


def missing(version: SourceVersion, file: SourceFile) -> TraceError:
    """Return the error for a committed object that the bucket does not have."""
    return Corrupt(
        "a committed file is missing: run `trace-lite verify --repair`, which fetches its range again",
        file=file.key,
        range=version.block_range,
    )
