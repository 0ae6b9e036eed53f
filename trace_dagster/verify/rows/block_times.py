"""The column ``block_timestamp``: the header's timestamp in microseconds since 1970, of the block of each row.

Rows of other datasets than ``blocks`` hold nothing that proves it. It is compared with headers where there are some.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP
from trace_dagster.datasets.chain import Chain, TimestampUnit
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import ExtractionFailed, TraceError, VerificationFailed
from trace_dagster.verify.mismatch import mismatch, shortened
from trace_dagster.verify.model import Header
from trace_dagster.verify.rows.arrow import block_at, first, present

MICROSECONDS: dict[TimestampUnit, int] = {"seconds": 1_000_000, "milliseconds": 1_000}
_YEAR_10000 = 253_402_300_800
"""Seconds from 1970 to the first moment after year 9999, the last that SQL engines agree on."""


def microseconds(headers: Sequence[Header], chain: Chain) -> list[int]:
    """Return the time of each header's block.

    Raises the error of a timestamp that is missing or lies after year 9999: ExtractionFailed if the header is proven,
    VerificationFailed if the node only claims it.
    """
    factor = MICROSECONDS[chain.timestamp_unit]
    return [_valid(each.timestamp, factor, each.number, chain, is_proven=each.is_proven) * factor for each in headers]


def claimed_microseconds(times: Sequence[int | None], first_block: int, chain: Chain) -> list[int]:
    """Return what :func:`microseconds` does, of the timestamps that a node claims of consecutive blocks."""
    factor = MICROSECONDS[chain.timestamp_unit]
    return [
        _valid(each, factor, block, chain, is_proven=False) * factor for block, each in enumerate(times, first_block)
    ]


def times_in_rows(table: pa.Table, piece: BlockRange) -> list[int] | None:
    """Return the timestamp of each block of a piece from column timestamp, or None if the rows do not have it.

    A block without rows gets 0. Raises VerificationFailed if rows of a block differ.
    """
    if "timestamp" not in table.column_names:
        return None
    numbers, given = present(table, "block_number").cast(pa.int64()), present(table, "timestamp").cast(pa.int64())
    others = pc.and_(pc.equal(numbers[1:], numbers[:-1]), pc.not_equal(given[1:], given[:-1]))
    _require(table.slice(1), others, given[1:], given[:-1], "rows of a block have different timestamps")
    found = dict(zip(numbers.to_pylist(), given.to_pylist(), strict=True))
    return [found.get(block, 0) for block in range(piece.start, piece.end)]


def check_times(table: pa.Table, chain_id: int) -> list[str]:
    """Check what holds for the column without headers, and return the names of the checks; none if it is missing.

    All rows of a block must have the same time: that of column timestamp, if there is one. Raises VerificationFailed.
    """
    if BLOCK_TIMESTAMP not in table.column_names:
        return []
    times = _times(table)
    numbers = present(table, "block_number")
    others = pc.and_(pc.equal(numbers[1:], numbers[:-1]), pc.not_equal(times[1:], times[:-1]))
    _require(table.slice(1), others, times[1:], times[:-1], "rows of a block have different block_timestamps")
    if "timestamp" not in table.column_names:
        return ["one block_timestamp per block"]
    given = present(table, "timestamp").cast(pa.int64())
    factor = MICROSECONDS[chain_of(chain_id).timestamp_unit]
    found = pc.divide(times, factor)
    others = pc.or_(pc.not_equal(found, given), pc.not_equal(pc.multiply(found, factor), times))
    _require(table, others, times, given, "block_timestamp is another time than timestamp")
    return ["block_timestamp is timestamp", "one block_timestamp per block"]


def compare_times(table: pa.Table, headers: Sequence[Header], chain_id: int) -> set[str]:
    """Compare the column with the headers of the table's blocks, which are consecutive.

    Return its name if proven headers cover it; nothing if the table has no such column or a header has no timestamp.
    Raises VerificationFailed with the first block that differs.
    """
    if BLOCK_TIMESTAMP not in table.column_names or any(each.timestamp is None for each in headers):
        return set()
    expected = pa.array(microseconds(headers, chain_of(chain_id)), pa.int64())
    places = pc.subtract(present(table, "block_number").cast(pa.int64()), headers[0].number)
    wanted, times = pc.take(expected, places), _times(table)
    _require(table, pc.not_equal(times, wanted), times, wanted, "block_timestamp is not that of the header")
    return {BLOCK_TIMESTAMP} if all(each.is_proven for each in headers) else set()


def _require(table: pa.Table, wrong: pa.BooleanArray, times: pa.Array, expected: pa.Array, sentence: str) -> None:
    """Raise VerificationFailed for the first row that is wrong."""
    row = first(wrong)
    if row is not None:
        raise mismatch(sentence, block_at(table, row), expected[row].as_py(), times[row].as_py())


def _times(table: pa.Table) -> pa.Array:
    """Return the column as microseconds since 1970."""
    found = present(table, BLOCK_TIMESTAMP)
    if found.type not in (pa.timestamp("us", tz="UTC"), pa.int64()):
        raise VerificationFailed("block_timestamp is no time in microseconds", type=found.type)
    return found.cast(pa.int64())


def _valid(value: int | None, factor: int, block: int, chain: Chain, *, is_proven: bool) -> int:
    if value is None:
        raise VerificationFailed("the header has no timestamp", block=block)
    if 0 <= value * factor < _YEAR_10000 * MICROSECONDS["seconds"]:
        return value
    raise _not_a_time(value, block, chain, is_proven=is_proven)


def _not_a_time(value: int, block: int, chain: Chain, *, is_proven: bool) -> TraceError:
    said = (
        f"does not lie between 1970 and 9999 in {chain.timestamp_unit}, the unit that the table of chains has for"
        f" {chain.name}"
    )
    facts = {"block": block, "column": BLOCK_TIMESTAMP, "value": shortened(value)}
    if not is_proven:
        return VerificationFailed(f"the node claims a timestamp that {said}", **facts)
    return ExtractionFailed(
        f"a header's timestamp {said}: start after this block, or use a version that knows it", **facts
    )
