"""Compare columns with expected values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.verify.mismatch import disagrees
from trace_dagster.verify.model import Header
from trace_dagster.verify.rows.arrow import plain


@dataclass(slots=True)
class Compared:
    """The result of a comparison: names of checks, columns that the evidence covers, statements that stay unproven."""

    checks: list[str] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    open: list[str] = field(default_factory=list)


def compare(table: pa.Table, expected: Mapping[str, Sequence[object]], blocks: Sequence[int]) -> set[str]:
    """Return the columns of ``expected`` that the table has, if all their values are equal.

    ``blocks`` gives each row's block. Raise VerificationFailed with the first value that differs.
    """
    found = {name for name in expected if name in table.column_names}
    for name in sorted(found):
        values = plain(table, name)
        if not _equal(values, expected[name]):
            for block, want, got in zip(blocks, expected[name], values.to_pylist(), strict=True):
                if want != got:
                    raise disagrees(f"{name} is not what the chain says", block, want, got)
    return found


def piece_of(headers: Sequence[Header]) -> BlockRange:
    """Return the block range of consecutive headers."""
    return BlockRange(headers[0].number, headers[-1].number + 1)


def counted(rows: int, expected: int, what: str, block: int) -> None:
    """Raise VerificationFailed unless a block has as many rows as the chain says."""
    if rows != expected:
        raise disagrees(f"the block does not have as many {what} as the chain says", block, expected, rows)


def _equal(values: pa.ChunkedArray, expected: Sequence[object]) -> bool:
    try:
        return bool(values.equals(pa.chunked_array([pa.array(expected, values.type)])))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False  # a value that the column cannot hold: the loop in compare() finds and names it
