"""Read rows of block ranges from stored Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.errors import VerificationFailed

if TYPE_CHECKING:
    from pathlib import Path

    from pyarrow import fs

READ_ERRORS = (OSError, pa.ArrowException)
"""Errors that Arrow raises for objects that are missing, damaged or no Parquet."""

_BATCH_ROWS = 16_384


def inside(ranges: Sequence[BlockRange]) -> pc.Expression:
    """Return the filter for rows of these ranges' blocks."""
    number = ds.field("block_number")
    found = pc.scalar(value=False)
    for each in ranges:
        found = found | ((number >= each.start) & (number < each.end))
    return found


def rows_of(opened: ds.Dataset, blocks: BlockRange, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a block range in file order, without the schema's metadata. ``columns`` None means all."""
    return rows_of_ranges(opened, [blocks], columns)


def rows_of_ranges(opened: ds.Dataset, ranges: Sequence[BlockRange], columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of block ranges in file order, as :func:`rows_of` does."""
    names = list(columns) if columns is not None else None
    return opened.to_table(columns=names, filter=inside(ranges)).replace_schema_metadata(None)


class RowsInOrder:
    """Reads the rows of one block range after the other from the files of one stream, each row group at most once.

    Ranges are taken from the lowest to the highest block; rows of blocks between them are left out. Memory is a batch
    and the rows that are taken. Close it when done.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        columns: Sequence[str] | None = None,
        filesystem: fs.FileSystem | None = None,
    ) -> None:
        """Open files that lie in the order of their rows. ``columns`` None means all.

        Raises what Arrow raises for files that are missing or no Parquet.
        """
        self._columns = list(dict.fromkeys(["block_number", *columns])) if columns is not None else None
        self._selected = list(columns) if columns is not None else None
        self._open = ExitStack()
        self._files: list[pq.ParquetFile] = []
        try:
            for path in paths:
                self._files.append(self._open.enter_context(pq.ParquetFile(path, filesystem=filesystem)))
        except BaseException:
            self._open.close()
            raise
        self._start = self._reached = 0
        self._batches = self._all_batches()
        self._rest: pa.Table | None = None

    @property
    def schemas(self) -> list[pa.Schema]:
        """The schema of each file, without its metadata."""
        return [file.schema_arrow.remove_metadata() for file in self._files]

    def take(self, blocks: BlockRange) -> pa.Table:
        """Return the rows of a range that lies after all ranges taken before.

        Raises VerificationFailed if the rows are not in block order, and what Arrow raises for damaged files.
        """
        if blocks.start < self._start:
            raise ValueError(f"{blocks} was passed already")
        self._start = blocks.start
        taken = []
        while (batch := self._rest if self._rest is not None else next(self._batches, None)) is not None:
            first, end = _count_below(batch, blocks.start), _count_below(batch, blocks.end)
            taken.append(batch.slice(first, end - first))
            self._rest = batch.slice(end) if end < batch.num_rows else None
            if self._rest is not None:
                break
        self._start = blocks.end
        found = pa.concat_tables(taken) if taken else self._empty()
        return found.select(self._selected) if self._selected is not None else found

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def __enter__(self) -> RowsInOrder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _empty(self) -> pa.Table:
        table = self.schemas[0].empty_table()
        return table.select(self._columns) if self._columns is not None else table

    def _all_batches(self) -> Iterator[pa.Table]:
        for file in self._files:
            for group, span in enumerate(row_group_spans(file.metadata)):
                if span is None or span[1] < self._start:
                    continue
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=self._columns):
                    self._require_order(batch["block_number"])
                    yield pa.Table.from_batches([batch]).replace_schema_metadata(None)

    def _require_order(self, numbers: pa.Array) -> None:
        if not len(numbers):
            return
        if numbers.null_count:
            raise VerificationFailed("a row has no block number")
        rising = pc.all(pc.greater_equal(numbers.slice(1), numbers.slice(0, len(numbers) - 1))).as_py()
        if numbers[0].as_py() < self._reached or rising is False:
            raise VerificationFailed("the rows of a file are not in block order", after_block=self._reached)
        self._reached = numbers[-1].as_py()


def row_group_spans(metadata: pq.FileMetaData) -> list[tuple[int, int] | None]:
    """Return the first and last block of each row group, by its statistics; None for one without rows.

    A row group without statistics may have every block.
    """
    column = metadata.schema.names.index("block_number")
    found: list[tuple[int, int] | None] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        statistics = group.column(column).statistics
        if not group.num_rows:
            found.append(None)
        elif statistics is None or not statistics.has_min_max:
            found.append((0, MAX_BLOCK))
        else:
            found.append((int(statistics.min), int(statistics.max)))
    return found


def block_outside(path: str | Path, ranges: Sequence[BlockRange]) -> int | None:
    """Return a block that a file has rows of and that is in none of these ranges; None if there is none."""
    rows = ds.dataset([str(path)], format="parquet").scanner(columns=["block_number"], filter=~inside(ranges))
    found = rows.head(1)
    return int(found["block_number"][0].as_py()) if found.num_rows else None


def _count_below(batch: pa.Table, block: int) -> int:
    return int(pc.sum(pc.less(batch["block_number"], block)).as_py() or 0)
