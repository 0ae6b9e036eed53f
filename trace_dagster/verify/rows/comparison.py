"""Columns against what they must hold."""

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
    """What a comparison did: names of checks, columns the evidence covers, statements it leaves open."""

    checks: list[str] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    open: list[str] = field(default_factory=list)


def compare(table: pa.Table, expected: Mapping[str, Sequence[object]], blocks: Sequence[int]) -> set[str]:
    """Names of the columns of ``expected`` the table has, once all their values are equal.

    ``blocks`` gives each row's block. Raises VerificationFailed with the first value that differs.
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
    """The blocks the headers are of."""
    return BlockRange(headers[0].number, headers[-1].number + 1)


def counted(rows: int, expected: int, what: str, block: int) -> None:
    """Raises VerificationFailed unless a block has as many rows as the chain says."""
    if rows != expected:
        raise disagrees(f"the block does not have as many {what} as the chain says", block, expected, rows)


def _equal(values: pa.ChunkedArray, expected: Sequence[object]) -> bool:
    try:
        return bool(values.equals(pa.chunked_array([pa.array(expected, values.type)])))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False  # a value the column cannot hold: the loop over both will name it
