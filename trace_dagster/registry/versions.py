"""Visible versions, with everything that a check of them needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset, dataset
from trace_dagster.datasets.levels import is_proven
from trace_dagster.registry.connection import Database


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One Parquet object as it was committed."""

    key: str
    bytes: int
    sha256: str
    rows: int


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
    with database.snapshot() as session:
        rows = session.all("versions_of_job", job_id=job_id, range_start=span.start, range_end=span.end)
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
            files=tuple(StoredFile(**each) for each in row["files"] or ()),
        )
        for row in rows
    ]


def _bytes(value: object) -> bytes | None:
    return None if value is None else bytes(value)  # type: ignore[call-overload]
