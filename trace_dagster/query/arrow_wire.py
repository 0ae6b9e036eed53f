"""Arrow tables on the socket between a query's process and its parent: pieces of rows, each an Arrow IPC stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_PIECE_BYTES = 16 << 20
"""About the size of a piece: the receiver holds one of them twice for a moment."""


def pieces(table: pa.Table | None) -> list[pa.Table]:
    """Return the rows in pieces of about the same number of bytes; none for None, one for a table without rows."""
    if table is None:
        return []
    count = max(1, -(-table.nbytes // _PIECE_BYTES))
    rows = max(1, -(-table.num_rows // count))
    return [table.slice(start, rows) for start in range(0, max(1, table.num_rows), rows)]


def encoded(piece: pa.Table) -> memoryview:
    """Return a piece as an Arrow IPC stream of one batch."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, piece.schema) as writer:
        writer.write_table(piece.combine_chunks())
    return memoryview(sink.getvalue())


def received(count: int, receive: Callable[[], bytes]) -> pa.Table | None:
    """Return the table of ``count`` pieces; None if there is none. Raises pa.ArrowInvalid for other bytes."""
    import pyarrow as pa

    tables = [table for _ in range(count) for table in _decoded(receive())]
    return pa.concat_tables(tables) if tables else None


def _decoded(data: bytes) -> Iterator[pa.Table]:
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        yield reader.read_all()
