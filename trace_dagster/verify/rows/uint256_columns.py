"""Columns that repeat a value: the binary, text and double columns of a uint256, and the byte counts of an input."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.rows.arrow import block_at, column, first, plain

SUFFIXES = ("_binary", "_string", "_f64")
INPUT_COUNTS = ("n_input_bytes", "n_input_zero_bytes", "n_input_nonzero_bytes")


def uint256_values(table: pa.Table) -> list[str]:
    """Return the names of the uint256 values that have at least two of their three columns in the table, sorted."""
    bases = {name.removesuffix(suffix) for name in table.column_names for suffix in SUFFIXES if name.endswith(suffix)}
    return sorted(base for base in bases if sum(base + suffix in table.column_names for suffix in SUFFIXES) > 1)


def check_uint256_columns(table: pa.Table) -> list[str]:
    """Raise VerificationFailed unless the columns of each uint256 agree. Return the names of the values checked."""
    found = uint256_values(table)
    if not found:
        return []
    for base, agreeing in zip(found, _plainly_agreeing(table, found), strict=True):
        if not pc.all(agreeing, min_count=0).as_py():
            _raise_first_disagreement(table.filter(pc.invert(agreeing)), base)
    return found


def uint256_columns(base: str, values: list[int | None]) -> dict[str, list[object]]:
    """Return the three columns of a uint256: 32 bytes big-endian, decimal text, and the nearest double."""
    return {
        f"{base}_binary": [None if value is None else value.to_bytes(32, "big") for value in values],
        f"{base}_string": [None if value is None else str(value) for value in values],
        f"{base}_f64": [None if value is None else float(value) for value in values],
    }


def input_counts(inputs: list[bytes]) -> dict[str, list[int]]:
    """Return the columns of byte counts that Cryo derives from each transaction's input."""
    zeros = [data.count(0) for data in inputs]
    sizes = [len(data) for data in inputs]
    return dict(
        zip(INPUT_COUNTS, (sizes, zeros, [size - zero for size, zero in zip(sizes, zeros, strict=True)]), strict=True)
    )


def check_input_counts(table: pa.Table) -> bool:
    """Raise VerificationFailed unless the n_input_* columns count the input. False if there is nothing to check."""
    present = [name for name in INPUT_COUNTS if name in table.column_names]
    if "input" not in table.column_names or not present:
        return False
    inputs = plain(table, "input")
    row = first(inputs.is_null())
    if row is not None:
        raise VerificationFailed("a transaction has no input", block=block_at(table, row))
    sizes, zeros = pc.binary_length(inputs), pc.count_substring(inputs, b"\0")
    for name, expected in zip(INPUT_COUNTS, (sizes, zeros, pc.subtract(sizes, zeros)), strict=True):
        if name in present:
            row = first(pc.fill_null(pc.not_equal(plain(table, name), expected), True))
            if row is not None:
                want, got = expected[row].as_py(), plain(table, name)[row].as_py()
                raise mismatch(f"{name} does not count the input", block_at(table, row), want, got)
    return True


def _plainly_agreeing(table: pa.Table, bases: list[str]) -> list[pa.ChunkedArray]:
    """Return for each value which rows surely agree: null in every column, or equal and below 2^127.

    Polars' arithmetic is exact up to that limit. The other rows are compared with Python's integers.
    """
    given = {base: [base + suffix for suffix in SUFFIXES if base + suffix in table.column_names] for base in bases}
    names = [name for columns in given.values() for name in columns]
    try:
        frame = pl.DataFrame(pl.from_arrow(pa.table({name: plain(table, name) for name in names})))
        agreeing = frame.select(_agree_plainly(base, columns).alias(base) for base, columns in given.items())
    except (pl.exceptions.PolarsError, pa.ArrowException):  # columns of other types: the exact comparison decides
        return [pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])] * len(bases)
    return [agreeing[base].to_arrow() for base in bases]


def _agree_plainly(base: str, names: list[str]) -> pl.Expr:
    binary, text, double = (pl.col(base + suffix) for suffix in SUFFIXES)
    low = binary.bin.slice(16, 16).bin.reinterpret(dtype=pl.Int128, endianness="big")
    value = low if f"{base}_binary" in names else text.cast(pl.Int128, strict=False)
    rules = {
        f"{base}_binary": (binary.bin.size() == 32) & (binary.bin.slice(0, 16) == bytes(16)),
        f"{base}_string": value.cast(pl.String) == text,
        f"{base}_f64": value.cast(pl.Float64) == double,
    }
    agreeing = pl.all_horizontal(value >= 0, *[rules[name] for name in names])
    return (agreeing | pl.all_horizontal(pl.col(name).is_null() for name in names)).fill_null(False)


def _raise_first_disagreement(table: pa.Table, base: str) -> None:
    blocks = plain(table, "block_number").to_pylist()
    given = {suffix: column(table, base + suffix) for suffix in SUFFIXES}
    values = _numbers(base, given["_binary"], given["_string"], blocks)
    for name, expected in uint256_columns(base, values).items():
        if name in table.column_names:
            _agree(f"{name} does not agree with the value's other columns", blocks, expected, column(table, name) or [])


def _numbers(
    base: str, binary: list[bytes | None] | None, string: list[str | None] | None, blocks: list[int]
) -> list[int | None]:
    """Return the exact numbers from the binary or text column. Two of the three columns include one of these."""
    if binary is not None:
        return [None if value is None else int.from_bytes(value[:33], "big") % 2**256 for value in binary]
    assert string is not None
    found: list[int | None] = []
    for value, block in zip(string, blocks, strict=True):
        if value is not None and not (value.isascii() and value.isdigit() and len(value) <= 78 and int(value) < 2**256):
            raise VerificationFailed(f"{base}_string is no uint256", block=block)
        found.append(None if value is None else int(value))
    return found


def _agree(sentence: str, blocks: list[int], expected: list[object] | list[int], got: list[object]) -> None:
    if expected == got:
        return
    for block, want, have in zip(blocks, expected, got, strict=True):
        if want != have:
            raise mismatch(sentence, block, want, have)
