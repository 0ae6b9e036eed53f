"""Casts the proven rows of a piece to the types in which they are stored."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP, Dataset
from trace_dagster.decoder.limits import beyond, fits
from trace_dagster.errors import ExtractionFailed, TraceError, VerificationFailed
from trace_dagster.verify.check import Proof
from trace_dagster.verify.mismatch import shortened


def lake_rows(
    dataset: Dataset,
    table: pa.Table,
    columns: Sequence[str],
    piece: BlockRange,
    proof: Proof | None,
    times: pa.Array,
) -> pa.Table:
    """Return ``columns`` of a piece's rows with the dataset's stored types, and the times of their blocks.

    ``table`` has the types of Cryo or of the decoder. ``times`` are the microseconds since 1970 of each block of the
    piece (int64), for column block_timestamp. ``proof`` tells which values are proven.

    Raises ExtractionFailed if a proven value does not fit into its column, VerificationFailed if the value is only
    claimed: a node must not be able to end a stream with a value that nothing proves. Also raises VerificationFailed
    for a row of another block.
    """
    schema = dataset.schema(columns)
    return pa.table([_column(table, field, piece, proof, times) for field in schema], schema)


def _column(
    table: pa.Table, field: pa.Field, piece: BlockRange, proof: Proof | None, times: pa.Array
) -> pa.ChunkedArray:
    if field.name == BLOCK_TIMESTAMP:
        return _of_rows(table, piece, times).cast(field.type)
    found = table[field.name]
    try:
        if pa.types.is_fixed_size_binary(field.type):
            return pa.chunked_array([_fixed(chunk, field.type) for chunk in found.chunks], field.type)
        return found.cast(field.type)
    except pa.ArrowInvalid:
        raise _first_error(table, field, proof) from None


def _fixed(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return bytes of any length as bytes of fixed size. The bytes are not copied if there are no nulls among them."""
    if values.null_count or not len(values) or not pa.types.is_large_binary(values.type):
        return values.cast(kind)
    lengths = pc.min_max(pc.binary_length(values)).as_py()
    if lengths != {"min": kind.byte_width, "max": kind.byte_width}:
        return values.cast(kind)  # raises
    _, offsets, data = values.buffers()
    start = memoryview(offsets).cast("q")[values.offset]
    return pa.Array.from_buffers(kind, len(values), [None, data.slice(start, len(values) * kind.byte_width)])


def _of_rows(table: pa.Table, piece: BlockRange, times: pa.Array) -> pa.ChunkedArray:
    """Return the time of each row's block. Rows that nothing checked may be of other blocks."""
    places = pc.subtract(table["block_number"].cast(pa.int64()), piece.start)
    is_inside = pc.and_(pc.greater_equal(places, 0), pc.less(places, len(piece)))
    if places.null_count or not pc.all(is_inside, min_count=0).as_py():
        raise VerificationFailed("a row lies outside the range", range=piece)
    return times.take(places)


def _first_error(table: pa.Table, field: pa.Field, proof: Proof | None) -> TraceError:
    """Return the error for the first value of a column that does not fit into the stored type."""
    is_binary = pa.types.is_fixed_size_binary(field.type)
    for block, value in zip(table["block_number"].to_pylist(), table[field.name].to_pylist(), strict=True):
        if value is None or (len(value) == field.type.byte_width if is_binary else fits(field.name, value)):
            continue
        is_proven = proof is not None and _covers(proof, field.name, block)
        if is_binary:
            return _wrong_length(field, value, block, is_proven=is_proven)
        return beyond(field.name, int(value), block, proven=is_proven)
    raise AssertionError(field)  # a cast fails for such values only


def _covers(proof: Proof, column: str, block: int) -> bool:
    """Return whether the chain's commitments cover a column in a block. False if a form leaves any of it open."""
    if any(each.first_block <= block < each.first_block + each.blocks for each in proof.lowered):
        return False
    return "full" in proof.levels and not any(re.search(rf"\b{column}\b", each) for each in proof.unproven)


def _wrong_length(field: pa.Field, value: bytes, block: int, *, is_proven: bool) -> TraceError:
    width = f"{field.type.byte_width} bytes"
    if not is_proven:
        return VerificationFailed(
            f"the node claims a {field.name} that is not {width} long", block=block, got=shortened(value)
        )
    return ExtractionFailed(
        f"a value does not fit into column {field.name}, which holds {width}: list the other columns under `columns` in"
        " a stream with another dataset_key, or start after this block",
        block=block,
        column=field.name,
        value=shortened(value),
    )
