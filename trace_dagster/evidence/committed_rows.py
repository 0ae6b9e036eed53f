"""Reads committed rows of a chain's own datasets, as evidence for its other datasets."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.scan import READ_ERRORS, rows_of
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
        self._opened: dict[UUID, ds.Dataset] = {}
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
                ahead = PIECE_BLOCKS if _WIDE.intersection(columns) else WINDOW_BLOCKS
                end = min(piece.start + ahead, self._block_range.end)
                window = self._read(source, BlockRange(piece.start, max(end, piece.end)), columns)
                window = window or self._read(source, piece, columns)
                if window is None:
                    return None
                self._windows[key] = window
        return window.rows_of(piece)

    def _read(self, source: str, span: BlockRange, columns: Sequence[str]) -> _Window | None:
        found = self._covering(source, span, columns)
        try:
            tables = [rows_of(self._open(version), span, columns) for version in found]
        except READ_ERRORS:
            return None
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

    def _open(self, version: _Version) -> ds.Dataset:
        filesystem = self._store.filesystem()
        opened = self._opened.get(version.identity)
        if opened is None or opened.filesystem != filesystem:  # temporary credentials were renewed
            paths = [f"{self._store.access.bucket}/{key}" for key in version.file_keys]
            opened = ds.dataset(paths, format="parquet", filesystem=filesystem)
            self._opened[version.identity] = opened
        return opened
