"""Visible versions, with everything that a check of them needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset, dataset
from trace_dagster.datasets.levels import is_proven
from trace_dagster.registry.connection import Database, Row


@dataclass(frozen=True, slots=True)
class FileLayout:
    """The layout that wrote a file, its manifest, and its hash index if there is one."""

    layout_id: UUID
    manifest_key: str
    manifest_sha256: str
    index_key: str | None = None
    index_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One Parquet object as it was committed. It may hold the rows of many versions."""

    key: str
    bytes: int
    sha256: str
    rows: int
    served: tuple[BlockRange, ...]
    """Blocks of the visible versions whose rows it holds, merged and in order; also of versions outside a requested
    span."""
    masked: tuple[BlockRange, ...] = ()
    """Blocks whose rows in this file are not visible any more, in order."""
    layout: FileLayout | None = None
    """None for a file that was written with its version."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One visible version of a stream's range."""

    dataset_key: str
    dataset: Dataset
    """The catalogue's entry of Cryo's dataset."""
    dataset_uuid: UUID
    chain_id: int
    dataset_version: UUID
    block_range: BlockRange
    manifest_key: str
    manifest_sha256: str
    content_digest: str
    rows: int
    columns: tuple[tuple[str, str], ...]
    """``(name, type)`` pairs of the stored columns."""
    verification: dict[str, Any]
    first_parent_hash: bytes | None
    last_block_hash: bytes | None
    files: tuple[StoredFile, ...]
    """Files that hold its rows now, in the order of its rows: its own, or one file of a layout."""

    @property
    def is_proven(self) -> bool:
        """Whether its commit compared the rows with the chain's commitments."""
        return is_proven(str(self.verification.get("asked")))

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of its files."""
        return self.dataset.schema([name for name, _ in self.columns])


def versions_of_job(database: Database, job_id: UUID, span: BlockRange) -> list[StoredVersion]:
    """Return a job's visible versions that overlap ``span``, sorted by dataset key and block, from one snapshot."""
    wanted = {"job_id": job_id, "range_start": span.start, "range_end": span.end}
    with database.snapshot() as session:
        rows = session.all("versions_of_job", **wanted)
        files = {row["file_key"]: _file(row) for row in session.all("files_of_job", **wanted)}
    return [
        StoredVersion(
            dataset_key=row["dataset_key"],
            dataset=dataset(row["source"]),
            dataset_uuid=row["dataset_uuid"],
            chain_id=row["chain_id"],
            dataset_version=row["dataset_version"],
            block_range=BlockRange(row["range_start"], row["range_end"]),
            manifest_key=row["manifest_key"],
            manifest_sha256=row["manifest_sha256"],
            content_digest=row["content_digest"],
            rows=row["row_count"],
            columns=tuple((name, kind) for name, kind in row["schema_json"]),
            verification=row["verification"],
            first_parent_hash=_bytes(row["first_parent_hash"]),
            last_block_hash=_bytes(row["last_block_hash"]),
            files=tuple(files[key] for key in row["file_keys"]),
        )
        for row in rows
    ]


def _file(row: Row) -> StoredFile:
    names = ("layout_id", "manifest_key", "manifest_sha256", "index_key", "index_sha256")
    layout = row["layout_id"] and FileLayout(*(row[name] for name in names))
    return StoredFile(
        key=row["file_key"],
        bytes=row["bytes"],
        sha256=row["sha256"],
        rows=row["row_count"],
        served=_ranges(row["served"]),
        masked=_ranges(row["masked_blocks"]),
        layout=layout,
    )


def _ranges(found: Iterable[Any] | None) -> tuple[BlockRange, ...]:
    """Return a multirange of the registry as block ranges."""
    return tuple(BlockRange(each.lower, each.upper) for each in found or ())


def _bytes(value: object) -> bytes | None:
    return None if value is None else bytes(value)  # type: ignore[call-overload]
