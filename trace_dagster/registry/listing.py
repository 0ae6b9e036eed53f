"""What readers outside get to know of datasets: their state beside their blocks, and each of their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Session
from trace_dagster.registry.snapshot_header import RelationInSnapshot


@dataclass(frozen=True, slots=True)
class DatasetDetails:
    """The state of one dataset beside its blocks."""

    from_block: int | None
    """First block that the job wants; None for a derived dataset."""
    to_block: int | None
    """End of the blocks that the job wants, exclusive; None if it follows the head."""
    levels: Mapping[str, int]
    """Committed ranges by the lowest level of proof of their blocks."""
    committed_at: datetime | None
    """When rows were committed last."""
    last_time: datetime | None
    """Time of the last block, or of the last committed row if the block's header is not stored."""
    age_seconds: float | None
    """Seconds since ``last_time``, by the database's clock."""


def details_of(session: Session, relations: Sequence[RelationInSnapshot]) -> dict[UUID, DatasetDetails]:
    """Return the state of the datasets of these relations."""
    if not relations:
        return {}
    rows = session.all(
        "details_of_datasets",
        dataset_uuids=[each.dataset_uuid for each in relations],
        last_blocks=[each.last_block for each in relations],
    )
    return {
        row["dataset_uuid"]: DatasetDetails(
            from_block=row["from_block"],
            to_block=row["to_block"],
            levels=row["levels"],
            committed_at=row["committed_at"],
            last_time=row["last_time"],
            age_seconds=row["age_seconds"],
        )
        for row in rows
    }


def listed_files(session: Session, dataset_uuid: UUID, block_range: BlockRange, bucket_uri: str) -> Iterator[str]:
    """Yield the files with visible rows of some blocks, in block order, each as a JSON object.

    ``bucket_uri`` stands before each key. Not all of them are in memory at a time.
    """
    found = session.each(
        "listed_files",
        dataset_uuid=dataset_uuid,
        range_start=block_range.start,
        range_end=block_range.end,
        bucket=bucket_uri,
    )
    return (row["entry"] for row in found)
