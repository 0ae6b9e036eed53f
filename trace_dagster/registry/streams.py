"""Streams as the registry stores them: configuration and progress of the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.config.chain_sync import ChainSync, FollowHead
from trace_dagster.config.compact import Compact
from trace_dagster.datasets.catalogue import Dataset, dataset
from trace_dagster.datasets.levels import VerifiedAsAsked
from trace_dagster.identity import LAKE_FORM, task_id
from trace_dagster.registry.connection import Row
from trace_dagster.registry.forms import old_form


@dataclass(frozen=True, slots=True)
class StreamSpec(VerifiedAsAsked):
    """One stream as applied: its identity, dataset and columns, and the grid on which its span is cut."""

    job_id: UUID
    job_name: str
    dataset_uuid: UUID
    dataset_key: str
    dataset: Dataset
    chain_id: int
    rpc_pool: str
    chunk_size: int
    columns: tuple[str, ...]
    config_hash: str
    verify: str
    """full, require_full, structural or off."""
    options: dict[str, Any]
    """Engine options of the stream, see :func:`trace_dagster.registry.jobs.engine_options`, and ``compact``."""
    from_block: int
    to_block: int | None
    """None when the job follows the head."""

    @property
    def compact(self) -> Compact | None:
        """Compaction settings; None if compaction is off. A stream of an earlier version has the defaults."""
        stored = self.options.get("compact", {})
        return None if stored == "off" else Compact(**stored)

    def task_id(self, block_range: BlockRange) -> UUID:
        """Return the identity of the task for one range."""
        return task_id(self.job_id, self.dataset_key, block_range)

    def is_cell(self, block_range: BlockRange) -> bool:
        """Return whether a range is one of the cells that this stream's span is cut into."""
        end = self.to_block if self.to_block is not None else MAX_BLOCK
        if not self.from_block <= block_range.start < block_range.end <= end:
            return False
        grid = block_range.start // self.chunk_size * self.chunk_size
        return block_range == BlockRange(max(grid, self.from_block), min(grid + self.chunk_size, end))


@dataclass(frozen=True, slots=True)
class StreamRow(StreamSpec):
    """A stream with its job and the state of its plan."""

    job_enabled: bool
    org_id: UUID
    max_inflight: int
    mode: str
    job: ChainSync
    eligible_end: int | None
    """End of the blocks that may be planned now; None before a head was observed."""
    planned_from: int
    next_block: int
    """Every block from planned_from to next_block is planned. A hint: the planner looks again after each apply."""
    cold_end: int
    """Blocks up to here are planned also while their rows are hot."""
    enabled: bool
    form: int
    """Form of its rows; those of another form than LAKE_FORM are left out until the stream is rebuilt."""
    blocked_reason: str | None
    halted_reason: str | None
    """Why the stream was stopped until its job is resumed; None when it was not."""

    @property
    def newest_first(self) -> bool:
        """Whether its newest blocks are committed first, and history backwards from them."""
        return isinstance(self.job.mode, FollowHead) and self.job.mode.backfill == "newest_first"

    @property
    def planned(self) -> BlockRange | None:
        """The blocks that the planner knows to be planned; None if there are none yet."""
        start = max(self.planned_from, self.from_block)
        return BlockRange(start, self.next_block) if start < self.next_block else None

    @property
    def old_form(self) -> str | None:
        """Why nothing of the stream is read, planned or claimed: its rows have another form; None if they have not."""
        return None if self.form == LAKE_FORM else old_form(self.form, self.job_name)


def stream_row(row: Row) -> StreamRow:
    """Build a stream from a row of ``all_streams`` or ``planned_stream``."""
    fields = {name: row[name] for name in (*StreamSpec.__slots__, *StreamRow.__slots__) if name in row}
    fields |= {
        "dataset": dataset(row["source"]),
        "columns": tuple(row["columns"]),
        "job": ChainSync.model_validate(row["spec"]["chain_sync"]),
    }
    return StreamRow(**fields)
