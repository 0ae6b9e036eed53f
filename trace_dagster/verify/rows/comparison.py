"""Compares columns with their expected values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header
from trace_dagster.verify.rows.arrow import plain


@dataclass(slots=True)
class Comparison:
    """The result of a comparison: names of checks done, columns that the evidence covers, statements not proven."""

    checks: list[str] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    unproven: list[str] = field(default_factory=list)


def compare_columns(table: pa.Table, expected: Mapping[str, Sequence[object]], blocks: Sequence[int]) -> set[str]:
    """Return the names of the columns that both the table and ``expected`` have, after comparing all their values.

    ``blocks`` is the block number of each row. Raises VerificationFailed with the first value that differs.
    """
    found = {name for name in expected if name in table.column_names}
    for name in sorted(found):
        values = plain(table, name)
        if not _equal(values, expected[name]):
            for block, want, got in zip(blocks, expected[name], values.to_pylist(), strict=True):
                if want != got:
                    raise mismatch(f"{name} is not what the chain says", block, want, got)
    return found


def piece_of(headers: Sequence[Header]) -> BlockRange:
    """Return the block range of the headers."""
    return BlockRange(headers[0].number, headers[-1].number + 1)


def require_count(rows: int, expected: int, what: str, block: int) -> None:
    """Raise VerificationFailed unless the block has the expected number of rows. ``what`` names the rows."""
    if rows != expected:
        raise mismatch(f"the block does not have as many {what} as the chain says", block, expected, rows)


def _equal(values: pa.ChunkedArray, expected: Sequence[object]) -> bool:
    try:
        return bool(values.equals(pa.chunked_array([pa.array(expected, values.type)])))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False  # a value does not fit the column's type; the caller's loop finds it
