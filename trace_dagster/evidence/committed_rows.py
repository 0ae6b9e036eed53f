"""Reads committed rows of a chain's own datasets, as evidence for its other datasets."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.scan import READ_ERRORS, inside, rows_of_ranges
from trace_dagster.verify.check import PIECE_BLOCKS

WINDOW_BLOCKS = 1000
"""Blocks that are read at once; only one piece if the columns are wide."""

_WIDE = frozenset({"input", "data"})


@dataclass(frozen=True, slots=True)
class _Version:
    identity: UUID
    block_range: BlockRange
    columns: frozenset[str]
    file_keys: tuple[str, ...]
    in_layout: bool

    def within(self, span: BlockRange) -> BlockRange:
        return BlockRange(max(self.block_range.start, span.start), min(self.block_range.end, span.end))


@dataclass(frozen=True, slots=True)
class _Window:
    """Rows of some blocks that were read at once."""

    span: BlockRange
    rows: pa.Table

    def holds(self, piece: BlockRange) -> bool:
        return self.span.start <= piece.start and piece.end <= self.span.end

    def rows_of(self, piece: BlockRange) -> pa.Table:
        numbers = self.rows["block_number"]
        inside = pc.and_(pc.greater_equal(numbers, piece.start), pc.less(numbers, piece.end))
        return self.rows.filter(inside)


class CommittedRows:
    """The committed versions of a chain's own datasets that touch one range. They are looked up a single time."""

    def __init__(
        self, database: Database, store: ObjectStore, dataset: UUID, block_range: BlockRange, sources: Sequence[str]
    ) -> None:
        self._store = store
        self._block_range = block_range
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, tuple[str, ...]], _Window] = {}
        self._versions: dict[tuple[str, UUID], list[_Version]] = {}
        self._opened: dict[tuple[str, ...], ds.Dataset] = {}
        with database.snapshot() as session:
            rows = session.all(
                "evidence_files",
                dataset_uuid=dataset,
                sources=list(sources),
                range_start=block_range.start,
                range_end=block_range.end,
            )
        for row in rows:
            version = _Version(
                row["dataset_version"],
                BlockRange(row["range_start"], row["range_end"]),
                frozenset(name for name, _ in row["schema_json"]),
                tuple(row["file_keys"]),
                row["in_layout"],
            )
            self._versions.setdefault((row["source"], row["dataset_uuid"]), []).append(version)

    def versions(self, source: str, piece: BlockRange, columns: Sequence[str]) -> list[UUID]:
        """Return the versions that hold ``columns`` for every block of ``piece``; empty if a block is missing."""
        return [version.identity for version in self._covering(source, piece, columns)]

    def table(self, source: str, piece: BlockRange, columns: Sequence[str]) -> pa.Table | None:
        """Return the rows of ``piece``, in block order; None if they do not cover it or cannot be read.

        Pieces come in order, so a read takes some pieces ahead: opening a file costs far more than reading more rows.
        """
        key = (source, tuple(columns))
        with self._lock:
            window = self._windows.get(key)
            if window is None or not window.holds(piece):
                window = self._read(source, self._ahead(source, piece, columns), columns)
                window = window or self._read(source, piece, columns)
                if window is None:
                    return None
                self._windows[key] = window
        return window.rows_of(piece)

    def _ahead(self, source: str, piece: BlockRange, columns: Sequence[str]) -> BlockRange:
        """Return the blocks to read for a piece: some pieces, or all row groups that the piece needs, if a layout's
        file holds it. Its row groups have more blocks than small files have, and one costs the same for all of them.
        """
        blocks = PIECE_BLOCKS if _WIDE.intersection(columns) else WINDOW_BLOCKS
        end = max(piece.start + blocks, piece.end)
        try:
            for version in self._covering(source, piece, columns):
                if version.in_layout:
                    end = max(end, _row_group_end(self._open(version.file_keys), piece.end - 1))
        except READ_ERRORS:
            return piece
        return BlockRange(piece.start, max(piece.end, min(end, self._block_range.end)))

    def _read(self, source: str, span: BlockRange, columns: Sequence[str]) -> _Window | None:
        """Read the rows of a span. Files that hold several versions are read once, only the blocks of these versions.

        Blocks of other versions in such a file may be masked, and rows of another file are visible in their place.
        """
        found = sorted(self._covering(source, span, columns), key=lambda version: version.block_range)
        runs = [list(run) for _, run in groupby(found, key=lambda version: version.file_keys)]
        blocks: dict[tuple[str, ...], list[BlockRange]] = {}
        for run in runs:
            blocks.setdefault(run[0].file_keys, []).append(_joined(run, span))
        try:
            rows = {keys: rows_of_ranges(self._open(keys), ranges, columns) for keys, ranges in blocks.items()}
        except READ_ERRORS:
            return None
        tables = [_Window(span, rows[run[0].file_keys]).rows_of(_joined(run, span)) for run in runs]
        return _Window(span, pa.concat_tables(tables)) if tables else None

    def _covering(self, source: str, piece: BlockRange, columns: Sequence[str]) -> list[_Version]:
        for (name, _), versions in self._versions.items():
            if name != source:
                continue
            touching = [
                version
                for version in versions
                if version.block_range.start < piece.end
                and piece.start < version.block_range.end
                and version.columns.issuperset(columns)
            ]
            if not any(holes(piece, (version.block_range for version in touching))):
                return touching
        return []

    def _open(self, keys: tuple[str, ...]) -> ds.Dataset:
        filesystem = self._store.filesystem()
        opened = self._opened.get(keys)
        if opened is None or opened.filesystem != filesystem:  # temporary credentials were renewed
            paths = [f"{self._store.access.bucket}/{key}" for key in keys]
            opened = ds.dataset(paths, format="parquet", filesystem=filesystem)
            self._opened[keys] = opened
        return opened


def _joined(run: Sequence[_Version], span: BlockRange) -> BlockRange:
    """Return the blocks within ``span`` of versions that follow each other without a gap."""
    return BlockRange(run[0].within(span).start, run[-1].within(span).end)


def _row_group_end(opened: ds.Dataset, block: int) -> int:
    """Return the first block after the row group that holds ``block``, by the statistics of the files; 0 if none."""
    for fragment in opened.get_fragments(filter=inside([BlockRange(block, block + 1)])):
        for group in fragment.row_groups:
            known = (group.statistics or {}).get("block_number")
            if known is not None and known["min"] <= block <= known["max"]:
                return int(known["max"]) + 1
    return 0
