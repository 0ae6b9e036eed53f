"""The change log of the lake: each change is written in the transaction that makes it."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Session, storable

Kind = Literal["committed", "invalidated", "compacted"]


def record_change(
    session: Session,
    kind: Kind,
    dataset_uuid: UUID,
    block_range: BlockRange,
    *,
    generation: int | None = None,
    dataset_version: UUID | None = None,
    layout_id: UUID | None = None,
    reason: str | None = None,
) -> None:
    """Append a change to ``trace.changes``, as part of the transaction of ``session``."""
    session.run(
        "insert_change",
        kind=kind,
        dataset_uuid=dataset_uuid,
        range_start=block_range.start,
        range_end=block_range.end,
        generation=generation,
        dataset_version=dataset_version,
        layout_id=layout_id,
        reason=None if reason is None else storable(reason),
    )
