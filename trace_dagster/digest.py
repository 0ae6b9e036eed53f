"""Content digest, version 2: SHA-256 over the rows, independent of the files that contain them (ADR 0016).

Each column is hashed as separate streams: one bit per row that says whether there is a value, then only the values that
there are. The column digests are then hashed together with their names and types. So a digest does not depend on batch
boundaries, Parquet writers, encodings, row groups or the bytes that Arrow keeps where a value is null.
"""

from __future__ import annotations

import hashlib
import struct

import pyarrow as pa
import pyarrow.compute as pc

_PREFIX = b"trace content digest 2\n"
"""Starts the hashed text, so that digests of two versions are never equal."""


class _Bits:
    """SHA-256 of booleans, packed eight in a byte with the first one lowest. The last byte is filled with zeros."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._rest = pa.array([], pa.bool_())

    def update(self, bits: pa.Array) -> None:
        """Append booleans, none of them null."""
        joined = pa.concat_arrays([self._rest, bits]) if len(self._rest) or bits.offset % 8 else bits
        whole = len(joined) // 8
        if whole:
            start = joined.offset // 8
            self._hash.update(memoryview(joined.buffers()[1])[start : start + whole])
        self._rest = joined.slice(8 * whole)

    def digest(self) -> bytes:
        last = self._hash.copy()
        if len(self._rest):
            last.update(bytes([sum(bit << place for place, bit in enumerate(self._rest.to_pylist()))]))
        return last.digest()


class _Bytes:
    """SHA-256 of fixed-width values in memory order (little-endian numbers)."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, values: pa.Array) -> None:
        """Append values, none of them null."""
        width = values.type.bit_width // 8
        first, last = values.offset * width, (values.offset + len(values)) * width
        self._hash.update(memoryview(values.buffers()[1])[first:last])

    def digest(self) -> bytes:
        return self._hash.digest()


class _Texts:
    """SHA-256 over two digests: of the values' lengths in bytes (uint32), and of the values."""

    def __init__(self) -> None:
        self._lengths = _Bytes()
        self._hash = hashlib.sha256()

    def update(self, values: pa.Array) -> None:
        """Append values, none of them null."""
        self._lengths.update(pc.binary_length(values).cast(pa.uint32()))
        _, offsets, data = values.buffers()
        ends = memoryview(offsets).cast("q")
        if data is not None:
            self._hash.update(memoryview(data)[ends[values.offset] : ends[values.offset + len(values)]])

    def digest(self) -> bytes:
        return hashlib.sha256(self._lengths.digest() + self._hash.digest()).digest()


class _Column:
    def __init__(self, field: pa.Field) -> None:
        self._valid = _Bits()
        self._values = _stream_of(field)
        self._label = f"{field.name}:{field.type}".encode()

    def update(self, chunk: pa.Array) -> None:
        self._valid.update(pc.is_valid(chunk))
        values = chunk.drop_null() if chunk.null_count else chunk
        if len(values):
            self._values.update(values)

    def entry(self) -> bytes:
        """Return the length of the label, the label and the digest of the column."""
        digest = hashlib.sha256(self._valid.digest() + self._values.digest()).digest()
        return struct.pack("<I", len(self._label)) + self._label + digest


class ContentDigest:
    """Digest of tables that are passed to :meth:`update` in row order. All have the schema given at the start.

    Raises ValueError for a schema with a type that stored rows never have, such as a dictionary or a list.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._columns = [_Column(field) for field in schema]
        self._rows = 0

    def update(self, table: pa.Table) -> None:
        """Append rows. Raises ValueError if the names or types of the table's columns are not the digest's."""
        if table.schema.names != self._schema.names or table.schema.types != self._schema.types:
            raise ValueError(f"digest over {self._schema} was fed {table.schema}")
        self._rows += table.num_rows
        for digest, column in zip(self._columns, table.columns, strict=True):
            for chunk in column.chunks:
                digest.update(chunk)

    def hexdigest(self) -> str:
        """Return 64 hex digits over the version, row count, column names, types and values."""
        whole = hashlib.sha256(_PREFIX + struct.pack("<Q", self._rows))
        for column in self._columns:
            whole.update(column.entry())
        return whole.hexdigest()


def _stream_of(field: pa.Field) -> _Bits | _Bytes | _Texts:
    if pa.types.is_boolean(field.type):
        return _Bits()
    if pa.types.is_large_binary(field.type) or pa.types.is_large_string(field.type):
        return _Texts()
    if any(has(field.type) for has in (pa.types.is_primitive, pa.types.is_decimal128, pa.types.is_fixed_size_binary)):
        return _Bytes()
    raise ValueError(f"column {field.name} has a type without a content digest: {field.type}")
