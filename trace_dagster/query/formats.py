"""Encodes the rows of a query as an Arrow IPC stream, CSV or Parquet, while they are read: the process of the query
holds a few MiB of them, however many there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from trace_dagster.query.column_sql import arrow_sql, csv_header, csv_sql
from trace_dagster.query.protocol import SNAPSHOT_KEY, STREAM_MESSAGE_BYTES, StreamFormat
from trace_dagster.query.result_rows import ResultRows

Send = Callable[[memoryview, int], None]
"""Takes encoded bytes, at most STREAM_MESSAGE_BYTES of them, and the number of rows that were encoded so far."""

_FIRST_BYTES = 64 << 10
_BATCH_BYTES = 1 << 20
_BATCH_ROWS = 1 << 16
"""The largest batch of an Arrow stream. The first one is what DuckDB computes first; the others grow up to this."""
_GROUP_BYTES = 32 << 20
_GROUP_ROWS = 122_880
"""The largest row group of a Parquet file, before it is encoded."""


def encode(form: StreamFormat, rows: ResultRows, names: Sequence[str], snapshot: Any, send: Send) -> int:
    """Read all rows, send them as this format, and return their number.

    ``names`` are those of the columns. CSV shows them as they are; in Arrow and Parquet each name is used once, because
    polars and many readers of Parquet refuse two columns of one name. ``snapshot`` is the answer's header as JSON; the
    metadata of Arrow and Parquet have it as ``trace.snapshot``.
    """
    columns = range(1, len(rows.types) + 1)
    if form == "csv":
        fields = [csv_sql(f"#{number}", kind) for number, kind in zip(columns, rows.types, strict=True)]
        joined = ", ',', ".join(fields)
        line = f"concat({joined}, chr(13), chr(10))"  # one function: a chain of || is a deep tree
        return _send_csv(csv_header(names), rows.read([line])[1], send)
    found, batches = rows.read(
        [arrow_sql(f"#{number}", kind) for number, kind in zip(columns, rows.types, strict=True)]
    )
    fields = [field.with_name(name) for field, name in zip(found, unique(names), strict=True)]
    schema = pa.schema(fields, {SNAPSHOT_KEY: json.dumps(snapshot)})
    named = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches)
    return (_send_arrow if form == "arrow" else _send_parquet)(schema, named, send)


def unique(names: Sequence[str]) -> list[str]:
    """Return the names; of those that are used twice, the later ones get a number that no other name has."""
    found: dict[str, None] = {}
    taken = set(names)
    for name in names:
        new, number = name, 1
        while new in found or (new != name and new in taken):
            new, number = f"{name}_{number}", number + 1
        found[new] = None
    return list(found)


class _Sink:
    """A file for Arrow's writers. It passes on what they write in messages of at most 1 MiB."""

    closed = False

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting = bytearray()
        self._position = 0
        self._is_dropped = False
        self.rows = 0
        """Rows that are in the bytes so far."""

    def write(self, data: bytes | memoryview) -> int:
        self._waiting += data
        self._position += len(data)
        if len(self._waiting) >= STREAM_MESSAGE_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Send the bytes that wait."""
        waiting, self._waiting = memoryview(self._waiting), bytearray()
        for start in range(0, 0 if self._is_dropped else len(waiting), STREAM_MESSAGE_BYTES):
            self._send(waiting[start : start + STREAM_MESSAGE_BYTES], self.rows)

    def drop(self) -> None:
        """Send nothing any more: a writer that ends by an error would write the end of a whole file."""
        self._is_dropped = True

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Keep what waits, because a writer that is closed is not yet at the end."""


@contextmanager
def _sink(send: Send) -> Iterator[_Sink]:
    sink = _Sink(send)
    try:
        yield sink
    except BaseException:
        sink.drop()
        raise
    sink.flush()


def _send_arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], send: Send) -> int:
    with _sink(send) as sink:
        writer = pa.ipc.new_stream(sink, schema)
        for table in _joined(batches, 0, _BATCH_BYTES, _BATCH_ROWS):
            writer.write_table(table.combine_chunks())
            sink.rows += table.num_rows
            sink.flush()
        writer.close()
    return sink.rows


def _send_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], send: Send) -> int:
    from pyarrow import parquet

    with _sink(send) as sink:
        writer = parquet.ParquetWriter(sink, schema, compression="zstd")
        for table in _joined(batches, _GROUP_BYTES, _GROUP_BYTES, _GROUP_ROWS):
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            sink.rows += table.num_rows
            sink.flush()
        writer.close()
    return sink.rows


def _send_csv(header: bytes, batches: Iterable[pa.RecordBatch], send: Send) -> int:
    """Send texts that are lines already. Those of a batch follow each other in one buffer."""
    with _sink(send) as sink:
        sink.write(header)
        for batch in batches:
            sink.rows += batch.num_rows
            sink.write(_bytes_of(batch.column(0)))
            sink.flush()
    return sink.rows


def _bytes_of(texts: pa.StringArray) -> memoryview:
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return memoryview(b"")
    ends = memoryview(offsets).cast("i")
    return memoryview(data)[ends[texts.offset] : ends[texts.offset + len(texts)]]


def _joined(batches: Iterable[pa.RecordBatch], first_bytes: int, most_bytes: int, most_rows: int) -> Iterator[pa.Table]:
    """Join small batches to tables of at least ``first_bytes``, and then more and more, up to about ``most_bytes``."""
    waiting: list[pa.RecordBatch] = []
    size = count = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        count += batch.num_rows
        if size >= first_bytes or count >= most_rows:
            yield pa.Table.from_batches(waiting)
            waiting, size, count = [], 0, 0
            first_bytes = min(max(2 * first_bytes, _FIRST_BYTES), most_bytes)
    if waiting:
        yield pa.Table.from_batches(waiting)
