"""The rows of a derived dataset before their commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from trace_dagster.identity import task_id

if TYPE_CHECKING:
    import pyarrow as pa

    from trace_dagster.ingest.commit import CommitTarget, RangeRows


@dataclass(frozen=True, slots=True)
class Derived:
    """A template's rows, ready to be committed."""

    dataset_uuid: UUID
    template: str
    parameters: dict[str, Any]
    target: CommitTarget
    table: pa.Table
    rows: RangeRows
    """The table in the form that the commit protocol takes."""
    gaps: int
    """Committed blocks that all inputs have and that are not used, because a hole separates them from the others."""

    @property
    def task_id(self) -> UUID:
        """Id of the task that commits these rows."""
        return task_id(self.dataset_uuid, self.template, self.target.block_range)
