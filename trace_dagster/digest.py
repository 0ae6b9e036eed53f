"""Content digest: SHA-256 over the rows, independent of the files that contain them (ADR 0003).

Each column is hashed as two streams: marks (validity, or value lengths) and values. The column digests are then hashed
together with their names and types. So a digest does not depend on batch boundaries, Parquet writers, encodings
or row groups. It costs little more than SHA-256 itself.
"""

from __future__ import annotations

import hashlib
import struct

import pyarrow as pa
import pyarrow.compute as pc

_NULL_LENGTH = -1


class _ColumnDigest:
    def __init__(self) -> None:
        self._marks = hashlib.sha256()
        self._values = hashlib.sha256()

    def update(self, chunk: pa.Array) -> None:
        if pa.types.is_large_binary(chunk.type) or pa.types.is_large_string(chunk.type):
            self._update_variable(chunk)
        else:
            self._update_fixed(chunk)

    def digest(self) -> bytes:
        return hashlib.sha256(self._marks.digest() + self._values.digest()).digest()

    def _update_fixed(self, chunk: pa.Array) -> None:
        self._marks.update(_bytes_of(pc.is_valid(chunk).cast(pa.uint8())))
        filled = pc.fill_null(chunk, False if pa.types.is_boolean(chunk.type) else 0)
        self._values.update(_bytes_of(filled.cast(pa.uint8()) if pa.types.is_boolean(chunk.type) else filled))

    def _update_variable(self, chunk: pa.Array) -> None:
        lengths = pc.binary_length(chunk).cast(pa.int64())
        self._marks.update(_bytes_of(pc.fill_null(lengths, _NULL_LENGTH)))
        filled = pc.fill_null(chunk, b"" if pa.types.is_large_binary(chunk.type) else "")
        offsets = memoryview(filled.buffers()[1]).cast("q") if len(filled) else None
        data = filled.buffers()[2]
        if offsets is not None and data is not None:
            first, last = offsets[filled.offset], offsets[filled.offset + len(filled)]
            self._values.update(memoryview(data)[first:last])


class ContentDigest:
    """Digest of tables that are passed to :meth:`update` in row order. All have the schema given at the start."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._columns = [_ColumnDigest() for _ in schema]
        self._rows = 0

    def update(self, table: pa.Table) -> None:
        """Append rows. Raises ValueError if the table has another schema than the digest."""
        if not table.schema.equals(self._schema):
            raise ValueError(f"digest over {self._schema} was fed {table.schema}")
        self._rows += table.num_rows
        for digest, column in zip(self._columns, table.columns, strict=True):
            for chunk in column.chunks:
                digest.update(chunk)

    def hexdigest(self) -> str:
        """Return 64 hex digits over row count, column names, types and values."""
        whole = hashlib.sha256(struct.pack("<Q", self._rows))
        for field, digest in zip(self._schema, self._columns, strict=True):
            label = f"{field.name}:{field.type}".encode()
            whole.update(struct.pack("<I", len(label)) + label + digest.digest())
        return whole.hexdigest()


def _bytes_of(chunk: pa.Array) -> memoryview:
    """Return the values of a fixed-width chunk without nulls as bytes in memory order (little-endian)."""
    width = chunk.type.bit_width // 8
    data = chunk.buffers()[1]
    if data is None or not len(chunk):
        return memoryview(b"")
    return memoryview(data)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
