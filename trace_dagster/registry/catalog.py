"""What readers may see: datasets, files, hot rows and committed ranges, each from one snapshot of the registry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP
from trace_dagster.identity import DEFAULT_ORG, LAKE_FORM
from trace_dagster.registry.as_of import NO_CUT, AsOf, cuts
from trace_dagster.registry.conditions import (
    HASHED_COLUMNS,
    LOWEST,
    Conditions,
    Reads,
    all_of,
    block_ranges,
    block_span,
    either,
    time_ranges,
    united,
)
from trace_dagster.registry.connection import Database, Row, Session
from trace_dagster.registry.grants import ALL, Grants
from trace_dagster.registry.listing import DatasetDetails, details_of, listed_files
from trace_dagster.registry.snapshot_header import Cut, SnapshotHeader, chains_with_heads, snapshot_header
from trace_dagster.registry.summaries import files_that_may_contain

if TYPE_CHECKING:
    import pyarrow as pa

    from trace_dagster.registry.hot_rows import HotReader

_MOST_LOOK_UPS = 16
"""Conditions of one dataset that are looked up one by one. A query may have thousands of scans, as a UNION has."""
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
    blocks: BlockRange | None = None
    """The file has no row of another block; None if that is not known."""
    index_key: str | None = None
    """Key of the object with the hashes of its layout's rows, if there is one."""


@dataclass(frozen=True, slots=True)
class FilesToOpen:
    """The files of a dataset that can hold rows that a query needs. No file is in it twice."""

    names: str
    """Keys of the files that were written with their versions, one on each line: there may be 100,000 of them."""
    layout_files: tuple[LakeFile, ...]
    hashes: frozenset[bytes] = frozenset()
    """If there are any, only rows with one of these hashes are needed."""

    def all_keys(self) -> list[str]:
        """Return the keys of all files."""
        return [*(self.names.split("\n") if self.names else ()), *(file.key for file in self.layout_files)]

    def index_keys(self) -> list[str]:
        """Return the keys of the hash indexes that tell which rows are needed."""
        return sorted({file.index_key for file in self.layout_files if self.hashes and file.index_key})


@dataclass(frozen=True, slots=True)
class Opened:
    """What a query needs of each dataset, all from one snapshot."""

    files: Mapping[UUID, FilesToOpen]
    hot: Mapping[UUID, pa.Table]
    """Rows that are in no file, of datasets that have hot blocks. They may hold more rows than the query needs."""
    cuts: Mapping[int, Cut]
    """By chain id. The files and hot rows may hold rows beyond them."""
    header: SnapshotHeader


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The visible rows of a dataset."""

    blocks: list[BlockRange]
    """The committed blocks, as few ranges as possible."""
    files: list[LakeFile]


@dataclass(frozen=True, slots=True)
class LakeDescription:
    """What a caller may know of the lake, as of one moment."""

    datasets: Sequence[VisibleDataset]
    header: SnapshotHeader
    details: Mapping[UUID, DatasetDetails]
    """By dataset."""


@dataclass(frozen=True, slots=True)
class LakeSnapshot:
    """One moment of some datasets: heads, cuts, files and hot rows are all of it."""

    session: Session
    header: SnapshotHeader
    hot_reader: Callable[[], HotReader]
    """Returns the reader when there are hot rows: it needs Arrow."""

    def last_block(self, dataset_uuid: UUID) -> int | None:
        """Return the last block of a dataset that its relation shows; None if there is none, or a cut is by time."""
        (found,) = [each for each in self.header.relations if each.dataset_uuid == dataset_uuid]
        return found.last_shown if self._cut(found.chain_id).time is None else None

    def open(self, reads: Mapping[UUID, Reads]) -> Opened:
        """Return the files and hot rows that hold all that is needed of each of the datasets.

        Raises Unavailable if a column that is needed was removed since the datasets were listed, InvalidInput if the
        hot rows are larger than a query may read.
        """
        needed = {
            each.dataset_uuid: _within(reads[each.dataset_uuid], self._cut(each.chain_id))
            if each.derived_columns is None
            else Reads()
            for each in self.header.relations
        }
        files = {dataset: _opened(self.session, dataset, each.conditions) for dataset, each in needed.items()}
        hot = {
            each.dataset_uuid: rows
            for each in self.header.relations
            if each.has_hot
            and (rows := self.hot_reader().read(self.session, each.dataset_uuid, needed[each.dataset_uuid])) is not None
        }
        return Opened(files, hot, self.header.cuts, self.header)

    def _cut(self, chain_id: int) -> Cut:
        return self.header.cuts.get(chain_id, Cut())


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

    def offered(self) -> tuple[list[VisibleDataset], tuple[int, ...]]:
        """Return every dataset that can be queried, and the chains with heads, as of one moment."""
        with self._database.snapshot() as session:
            return self._datasets(session), chains_with_heads(session, self._org_id)

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

    def files_of_ranges(self, dataset_uuid: UUID, ranges: Sequence[BlockRange]) -> list[list[LakeFile]]:
        """Return what :meth:`files` does for each range, all as of one moment: only then each row is there once."""
        with self._database.snapshot() as session:
            return [_files(session, dataset_uuid, each) for each in ranges]

    def open(self, reads: Mapping[UUID, Reads], as_of: AsOf = NO_CUT, chains: Collection[int] = ()) -> Opened:
        """Return the files and hot rows that hold all that is needed of each dataset, as of one moment. The header has
        the heads of these ``chains`` as well.

        Raises Unavailable if a column that is needed was removed since the datasets were listed, InvalidInput if the
        hot rows are larger than a query may read, and what :func:`~trace_dagster.registry.as_of.cuts` raises.
        """
        with self.snapshot(reads, as_of, chains) as found:
            return found.open(reads)

    @contextmanager
    def snapshot(
        self, datasets: Collection[UUID], as_of: AsOf = NO_CUT, chains: Collection[int] = ()
    ) -> Iterator[LakeSnapshot]:
        """Yield one moment of these datasets, before it is known what is needed of each. Writers go on meanwhile.

        It holds a connection. Raises as :meth:`open` does.
        """
        with self._database.snapshot() as session:
            found = cuts(session, as_of, datasets, self._org_id)
            header = snapshot_header(session, datasets, found, chains=chains, org_id=self._org_id)
            yield LakeSnapshot(session, header, lambda: self._hot_reader)

    @cached_property
    def _hot_reader(self) -> HotReader:
        from trace_dagster.registry.hot_rows import HotReader  # it needs Arrow, which most processes never import

        return HotReader()

    def stored(self, datasets: Collection[UUID]) -> dict[UUID, StoredRows]:
        """Return what is committed of datasets, as of one moment."""
        with self._database.snapshot() as session:
            return {each: _stored(session, each) for each in datasets}

    def committed_ranges(self, dataset_uuid: UUID) -> list[BlockRange]:
        """Return the committed blocks of a dataset as few ranges as possible."""
        with self._database.snapshot() as session:
            return committed_ranges(session, dataset_uuid)

    def described(self, grants: Grants = ALL) -> LakeDescription:
        """Return what a caller may know of its datasets, as of one moment. The cost does not depend on how many files
        there are.
        """
        with self._database.snapshot() as session:
            found = [each for each in self._datasets(session) if grants.allows(each.chain_id, each.dataset_key)]
            header = snapshot_header(session, [each.dataset_uuid for each in found], {}, org_id=self._org_id)
            return LakeDescription(found, header, details_of(session, header.relations))

    @contextmanager
    def listing(
        self, dataset_uuid: UUID, block_range: BlockRange, bucket_uri: str
    ) -> Iterator[tuple[SnapshotHeader, Iterator[str]]]:
        """Yield the header of a dataset, and its files with visible rows of ``block_range``, in block order and each as
        a JSON object, as of one moment. It holds a connection.
        """
        with self._database.snapshot() as session:
            header = snapshot_header(session, [dataset_uuid], {}, org_id=self._org_id)
            yield header, listed_files(session, dataset_uuid, block_range, bucket_uri)

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


def _stored(session: Session, dataset_uuid: UUID) -> StoredRows:
    return StoredRows(committed_ranges(session, dataset_uuid), _files(session, dataset_uuid, EVERYTHING))


def _files(session: Session, dataset_uuid: UUID, block_range: BlockRange) -> list[LakeFile]:
    rows = session.all(
        "visible_files", dataset_uuid=dataset_uuid, range_start=block_range.start, range_end=block_range.end
    )
    return [_lake_file(row) for row in rows]


def _opened(session: Session, dataset: UUID, conditions: Sequence[Conditions]) -> FilesToOpen:
    return _united([_files_to_open(session, dataset, each) for each in _needed(conditions)], conditions)


def _within(reads: Reads, cut: Cut) -> Reads:
    """Return what a query needs that shows no row beyond a cut."""
    blocks = None if cut.block is None else ((LOWEST, cut.block),)
    times = None if cut.time is None else ((LOWEST, microseconds(cut.time)),)
    conditions = [
        replace(each, blocks=all_of([each.blocks, blocks]), times=all_of([each.times, times]))
        for each in reads.conditions or (Conditions(),)
    ]
    cut_by = {"block_number"} if times is None else {"block_number", BLOCK_TIMESTAMP}
    return Reads(tuple(conditions), None if reads.columns is None else reads.columns | cut_by)


def microseconds(time: datetime) -> int:
    """Return the microseconds since 1970 of a time with a zone."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _needed(conditions: Sequence[Conditions]) -> Sequence[Conditions]:
    """Return few conditions that cover all given ones: one without limits covers every other."""
    whole = Conditions()
    if not conditions or whole in conditions:
        return [whole]
    found = [*{repr(each): each for each in conditions}.values()]
    return found if len(found) <= _MOST_LOOK_UPS else [united(found)]


def _files_to_open(session: Session, dataset_uuid: UUID, conditions: Conditions) -> FilesToOpen:
    values = {"dataset_uuid": dataset_uuid, "form": LAKE_FORM, "times": time_ranges(conditions.times)}
    blocks = conditions.blocks
    if blocks is None and conditions.times is not None:
        row = session.one("blocks_of_times", **values)
        blocks = either((), tuple((each.lower, each.upper - 1) for each in row["blocks"])) if row else ()
    within = {"blocks": block_ranges(blocks), "span": block_span(blocks)}
    if blocks is None:
        row = session.one("names_of_all_files", **values)
    else:
        row = session.one("names_of_files", **values, **within)
    found = {each["file_key"]: _lake_file(each) for each in session.all("layout_files", **values, **within)}
    kept = files_that_may_contain(session, found, conditions.values)
    return FilesToOpen((row and row["names"]) or "", tuple(found[key] for key in kept))


def _lake_file(row: Row) -> LakeFile:
    blocks = None if row["min_block"] is None else BlockRange(row["min_block"], row["max_block"] + 1)
    masked = tuple(BlockRange(each.lower, each.upper) for each in row["masked_blocks"])
    return LakeFile(row["file_key"], masked, blocks, row.get("index_key"))


def _united(found: Sequence[FilesToOpen], conditions: Sequence[Conditions]) -> FilesToOpen:
    """Return the files of all scans, each once."""
    names = [each.names for each in found if each.names]
    if len(names) > 1:
        names = list(dict.fromkeys(name for each in names for name in each.split("\n")))
    layout_files = {file.key: file for each in found for file in each.layout_files}
    return FilesToOpen("\n".join(names), tuple(layout_files.values()), _hashes(conditions))


def _hashes(conditions: Sequence[Conditions]) -> frozenset[bytes]:
    """Return the hashes of which every needed row has one; none if a scan does not ask for hashes."""
    asked = [[each.values[name] for name in HASHED_COLUMNS if name in each.values] for each in conditions]
    return frozenset().union(*(values[0] for values in asked)) if all(asked) else frozenset()


def committed_ranges(session: Session, dataset_uuid: UUID) -> list[BlockRange]:
    """Return the committed blocks of a dataset as few ranges as possible."""
    rows = session.all("covered_ranges", dataset_uuid=dataset_uuid)
    return [BlockRange(row["range_start"], row["range_end"]) for row in rows]
