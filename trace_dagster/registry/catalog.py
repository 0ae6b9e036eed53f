"""What readers may see: datasets, files and committed ranges, each from one snapshot of the registry."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.connection import Database, Session

EVERYTHING = BlockRange(0, MAX_BLOCK)


@dataclass(frozen=True, slots=True)
class VisibleDataset:
    """One dataset, and the sums over its visible rows."""

    dataset_uuid: UUID
    chain_id: int
    dataset_key: str
    kind: str
    dataset: str
    ranges: int
    rows: int
    bytes: int
    columns: tuple[str, ...] | None
    """Columns that a stream stores; None for a derived dataset."""
    schema: tuple[tuple[str, str], ...] | None
    """``(name, type)`` pairs of the newest visible version; None if nothing is committed."""


@dataclass(frozen=True, slots=True)
class LakeFile:
    """One Parquet object that holds visible rows of a dataset."""

    key: str
    """Its key within the bucket."""
    masked: tuple[BlockRange, ...] = ()
    """Blocks whose rows in this file are not visible any more, in order. Every reader leaves them out."""


class Catalog:
    """Reads the registry without blocking writers."""

    def __init__(self, database: Database, org_id: UUID = DEFAULT_ORG) -> None:
        self._database = database
        self._org_id = org_id

    def datasets(self) -> list[VisibleDataset]:
        """Return every dataset that can be queried, as of one moment. The cost does not depend on how much is
        committed.
        """
        with self._database.snapshot() as session:
            return self._datasets(session)

    def lake(self) -> list[tuple[VisibleDataset, tuple[LakeFile, ...]]]:
        """Return every dataset with the files of its visible rows, in block order, as of one moment."""
        with self._database.snapshot() as session:
            return [
                (found, tuple(_files(session, found.dataset_uuid, EVERYTHING))) for found in self._datasets(session)
            ]

    def files(self, dataset_uuid: UUID, block_range: BlockRange) -> list[LakeFile]:
        """Return the files with visible rows of ``block_range``, in block order. They may hold rows of other blocks."""
        with self._database.snapshot() as session:
            return _files(session, dataset_uuid, block_range)

    def committed_ranges(self, dataset_uuid: UUID) -> list[BlockRange]:
        """Return the committed blocks of a dataset as few ranges as possible."""
        with self._database.snapshot() as session:
            return committed_ranges(session, dataset_uuid)

    def _datasets(self, session: Session) -> list[VisibleDataset]:
        return [
            VisibleDataset(
                dataset_uuid=row["dataset_uuid"],
                chain_id=row["chain_id"],
                dataset_key=row["dataset_key"],
                kind=row["kind"],
                dataset=row["source"],
                ranges=row["ranges"],
                rows=row["row_count"],
                bytes=row["byte_count"],
                columns=tuple(row["columns"]) if row["columns"] is not None else None,
                schema=tuple((name, kind) for name, kind in row["schema_json"]) if row["schema_json"] else None,
            )
            for row in session.all("visible_datasets", org_id=self._org_id)
        ]


def _files(session: Session, dataset_uuid: UUID, block_range: BlockRange) -> list[LakeFile]:
    rows = session.all(
        "visible_files", dataset_uuid=dataset_uuid, range_start=block_range.start, range_end=block_range.end
    )
    return [
        LakeFile(row["file_key"], tuple(BlockRange(each.lower, each.upper) for each in row["masked_blocks"]))
        for row in rows
    ]


def committed_ranges(session: Session, dataset_uuid: UUID) -> list[BlockRange]:
    """Return the committed blocks of a dataset as few ranges as possible."""
    rows = session.all("covered_ranges", dataset_uuid=dataset_uuid)
    return [BlockRange(row["range_start"], row["range_end"]) for row in rows]
