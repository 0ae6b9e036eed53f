"""Compares stored times of rows with those of stored blocks. Rows alone hold nothing that proves their time."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import VerificationFailed

TIME_COLUMNS = ("block_number", "block_timestamp")


def has_times(dataset_name: str, columns: Iterable[tuple[str, str]]) -> bool:
    """Return whether rows have times that those of blocks can prove. The rows of ``blocks`` have their own."""
    return dataset_name != "blocks" and any(name == "block_timestamp" for name, _ in columns)


def same_times(rows: pa.Table, blocks: pa.Table | None, piece: BlockRange) -> bool:
    """Compare times of rows with those of the piece's blocks.

    Return False without comparing unless there is one row per block. Raises VerificationFailed if a time differs.
    """
    if blocks is None or blocks["block_number"].to_pylist() != list(range(piece.start, piece.end)):
        return False
    places = pc.subtract(rows["block_number"].cast(pa.int64()), piece.start)
    differs = pc.not_equal(rows["block_timestamp"], pc.take(blocks["block_timestamp"], places))
    wrong = rows.filter(pc.fill_null(differs, fill_value=True))
    if wrong.num_rows:
        raise VerificationFailed("block_timestamp is not that of the block", block=wrong["block_number"][0].as_py())
    return True
