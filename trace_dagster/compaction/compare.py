"""Reads a written file back and compares the content digest of each version in it with the registry."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from trace_dagster.compaction.ahead import ahead
from trace_dagster.digest import ContentDigest
from trace_dagster.errors import Corrupt, Unavailable
from trace_dagster.registry.layouts import LayoutFile, SourceVersion
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.scan import READ_ERRORS

_THREADS = 2
_LEAST_ROWS = 10_000
"""With fewer rows, a file is compared in one thread."""


class WrittenRows:
    """Compares files in threads while others are still written. Memory is two row groups for each thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="compaction-compare")
        self._running: list[Future[None]] = []

    def add(self, file: LayoutFile, schema: pa.Schema) -> None:
        """Start to compare a file. Raise the error of one that differed already."""
        for done in [each for each in self._running if each.done()]:
            self._running.remove(done)
            done.result()
        for versions, first in _halves(file):
            self._running.append(self._threads.submit(self._compare, file, schema, versions, first))

    def finish(self) -> None:
        """Wait for all comparisons. Raise Corrupt, naming the version, if a digest differs."""
        for each in self._running:
            each.result()

    def close(self) -> None:
        """Start no other comparison, and wait for those under way."""
        self._threads.shutdown(cancel_futures=True)

    def _compare(self, file: LayoutFile, schema: pa.Schema, versions: Sequence[SourceVersion], first: int) -> None:
        rows = _Rows(self._read(file, first, sum(version.rows for version in versions)))
        for version in versions:
            digest = ContentDigest(schema)
            for table in rows.take(version.rows):
                digest.update(table)
            if digest.hexdigest() != version.content_digest:
                raise Corrupt(
                    "a version's rows in the compacted file are not those that were committed; its own files stay in"
                    " use: check them with `trace-lite verify`",
                    dataset_version=version.dataset_version,
                    range=version.block_range,
                )

    def _read(self, file: LayoutFile, first: int, count: int) -> Iterator[pa.Table]:
        """Yield ``count`` rows from row ``first`` on, as the object store has them now."""
        try:
            path = f"{self._store.access.bucket}/{file.key}"
            with self._store.filesystem().open_input_file(path) as source:
                opened = pq.ParquetFile(source)
                if opened.metadata.num_rows != file.rows:
                    raise Corrupt("a compacted file has another number of rows than were written", file=file.key)
                yield from ahead(_groups(opened, first, first + count), 1)
        except READ_ERRORS as error:
            raise Unavailable(
                "a compacted file cannot be read back: try again", file=file.key, reason=type(error).__name__
            ) from None


class _Rows:
    """Hands out the next rows of a stream of tables."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._left: pa.Table | None = None

    def take(self, count: int) -> Iterator[pa.Table]:
        while count:
            if self._left is None or not self._left.num_rows:
                self._left = next(self._tables, None)
                if self._left is None:
                    return  # the digest differs then
                continue
            part = self._left.slice(0, count)
            self._left = self._left.slice(part.num_rows)
            count -= part.num_rows
            yield part


def _groups(opened: pq.ParquetFile, first: int, end: int) -> Generator[pa.Table, None, None]:
    """Yield the rows from ``first`` to ``end``, one row group at a time."""
    start = 0
    for number in range(opened.num_row_groups):
        stop = start + opened.metadata.row_group(number).num_rows
        if start < end and stop > first:
            table = opened.read_row_group(number).replace_schema_metadata(None)
            yield table.slice(max(0, first - start), min(stop, end) - max(start, first))
        start = stop


def _halves(file: LayoutFile) -> Iterator[tuple[Sequence[SourceVersion], int]]:
    """Yield two parts of a file's versions with about the same number of rows, and the number of rows before each."""
    if file.rows < _LEAST_ROWS:
        yield file.versions, 0
        return
    before = 0
    for number, version in enumerate(file.versions):
        before += version.rows
        if 2 * before >= file.rows:
            yield file.versions[: number + 1], 0
            if file.versions[number + 1 :]:
                yield file.versions[number + 1 :], before
            return
