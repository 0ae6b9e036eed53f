"""The documents of the routes that describe the lake, for OpenAPI and its clients."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

Span = tuple[int, int]
"""Blocks from the first up to the second, exclusive."""


class HeadEntry(BaseModel):
    """One head of a chain, as the follower observed it last."""

    chain_id: int
    tag: Literal["latest", "safe", "finalized"]
    label: str = Field(description="the chain's own word for the tag")
    number: int
    hash: str | None
    block_timestamp: datetime | None
    age_seconds: float = Field(description="since the follower observed it")


class ChainEntry(BaseModel):
    """A chain of which the token may see a dataset."""

    chain_id: int
    name: str
    heads: list[HeadEntry] = Field(description="empty if the chain is not followed")


class ColumnEntry(BaseModel):
    """A column of a dataset."""

    name: str
    type: str = Field(description="DuckDB's name of the type")
    description: str | None


class Coverage(BaseModel):
    """Which blocks a dataset has."""

    first_block: int | None
    last_block: int | None
    hot_from: int | None = Field(description="the first block that is in no file yet; null if there is none")
    last_committed: int | None
    missing_blocks: int = Field(description="number of blocks in all gaps")
    gaps: list[Span] = Field(description="the newest 100, end-exclusive, in ascending order")
    wanted_from: int | None = Field(description="the first block that the job wants")
    wanted_to: int | None = Field(description="the end of what the job wants, exclusive; null if it follows the head")


class Freshness(BaseModel):
    """How old a dataset's newest rows are."""

    committed_at: datetime | None
    last_block_time: datetime | None
    age_seconds: float | None = Field(description="since last_block_time")


class DatasetEntry(BaseModel):
    """A dataset: its columns, its blocks, and how fresh it is."""

    name: str
    short_name: str | None = Field(description="the name without the chain, if one chain alone has it")
    chain_id: int
    kind: Literal["stream", "derived"]
    dataset: str
    columns: list[ColumnEntry]
    rows: int = Field(description="committed rows; hot ones are not counted")
    bytes: int
    ranges: int
    levels: dict[str, int] = Field(description="committed ranges by their level of proof")
    coverage: Coverage
    freshness: Freshness


class LakeEntry(BaseModel):
    """Everything that the token may see, as of one moment."""

    cursor: str = Field(description="of the change log at this moment")
    chains: list[ChainEntry]
    datasets: list[DatasetEntry]


class OneDataset(DatasetEntry):
    """One dataset, as of one moment."""

    cursor: str
    chain: ChainEntry


class FileEntry(BaseModel):
    """One Parquet object."""

    key: str
    uri: str
    first_block: int | None = Field(description="the file has no row of an earlier block; null if that is not known")
    last_block: int | None
    masked: list[Span] = Field(description="leave out the rows of these blocks: they are not visible any more")
    rows: int = Field(description="all rows of the file, those of masked blocks included")
    bytes: int
    etag: str | None
    sha256: str


class FilesEntry(BaseModel):
    """The files of a dataset, as of one moment. Rows of hot blocks are in none of them."""

    cursor: str
    dataset: str
    from_block: int
    to_block: int
    hot_from: int | None
    last_committed: int | None
    files: list[FileEntry]


class ChangeEntry(BaseModel):
    """One change; docs/changes.md has the meaning of its members."""

    cursor: str
    kind: Literal["committed", "invalidated", "compacted", "hot", "pruned"]
    chain_id: int
    dataset_key: str
    dataset_uuid: UUID
    range_start: int
    range_end: int
    generation: int | None
    dataset_version: UUID | None
    layout_id: UUID | None
    block_hash: str | None
    reason: str | None
    changed_at: datetime


class ChangesEntry(BaseModel):
    """Changes after a cursor."""

    changes: list[ChangeEntry]
    cursor: str = Field(description="go on with this one, also if there is no change")
    caught_up: bool = Field(description="whether there was no further change; otherwise ask again at once")


class HealthEntry(BaseModel):
    """Whether the service can answer."""

    status: Literal["ok", "unavailable"]
    away: list[Literal["registry", "object_store", "processes"]] = []
