"""The three columns of a uint256 (binary, text, double), computed column by column."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from trace_dagster.errors import VerificationFailed

_BYTES = 32
_HEX = r"^0x[0-9a-fA-F]{1,64}$"


def uint256_columns(base: str, binary: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
    """Return columns ``{base}_binary``, ``_string`` and ``_f64`` from 32 bytes big-endian; nulls stay null.

    Polars computes with 128 bits and a sign. Rows of 2^127 and more are computed with Python's integers.
    """
    values = pl.Series(base, pl.from_arrow(binary), dtype=pl.Binary)
    frame = pl.DataFrame([values]).select(
        is_small=((pl.col(base).bin.slice(0, 16) == bytes(16)) & (pl.col(base).bin.slice(16, 1) < b"\x80")).fill_null(
            True
        ),
        low=pl.col(base).bin.slice(16, 16).bin.reinterpret(dtype=pl.Int128, endianness="big"),
    )
    text, double = frame["low"].cast(pl.String), frame["low"].cast(pl.Float64)
    if not frame["is_small"].all():
        numbers = [None if each is None else int.from_bytes(each, "big") for each in values.to_list()]
        text = pl.Series(base, [None if each is None else str(each) for each in numbers], dtype=pl.String)
        double = pl.Series(base, [None if each is None else float(each) for each in numbers], dtype=pl.Float64)
    return {
        f"{base}_binary": values.to_arrow().cast(pa.large_binary()),
        f"{base}_string": text.to_arrow().cast(pa.large_string()),
        f"{base}_f64": double.to_arrow().cast(pa.float64()),
    }


def uint256_of_numbers(base: str, values: Sequence[int | None]) -> dict[str, pa.Array]:
    """Return the same columns from numbers below 2^256."""
    binary = binary_of_numbers(values)
    try:
        small = pl.Series(base, values, dtype=pl.UInt64)
    except (OverflowError, pl.exceptions.PolarsError, TypeError):
        return uint256_columns(base, binary)
    return {
        f"{base}_binary": binary,
        f"{base}_string": small.cast(pl.String).to_arrow().cast(pa.large_string()),
        f"{base}_f64": small.cast(pl.Float64).to_arrow().cast(pa.float64()),
    }


def binary_of_numbers(values: Sequence[int | None]) -> pa.Array:
    """Return numbers below 2^256 as 32 bytes big-endian."""
    return pa.array([None if each is None else each.to_bytes(_BYTES, "big") for each in values], pa.large_binary())


def numbers_of_hex(texts: Sequence[str | None]) -> list[int | None]:
    """Return the numbers of a node's answer: ``0x`` and 1 to 64 digits.

    Raises VerificationFailed if a text is no such number.
    """
    if not pl.Series(texts, dtype=pl.String).str.contains(_HEX).fill_null(True).all():
        raise VerificationFailed("a number in a call frame is no hex of at most 256 bits")
    return [None if text is None else int(text, 16) for text in texts]
