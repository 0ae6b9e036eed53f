"""What is to be done: one range of one applied stream, claimed. Names and numbers only, no rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.datasets.catalogue import Dataset, dataset
from trace_dagster.identity import task_id
from trace_dagster.registry.tasks import Lease


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream as applied: what the registry knows of it."""

    job_id: UUID
    job_name: str
    dataset_uuid: UUID
    dataset_key: str
    cryo_dataset_name: str
    chain_id: int
    rpc_pool: str
    chunk_size: int
    columns: tuple[str, ...]
    config_hash: str
    verify: str
    options: dict[str, Any]
    from_block: int
    to_block: int | None

    @property
    def dataset(self) -> Dataset:
        """The engine's dataset."""
        return dataset(self.cryo_dataset_name)

    def task_id(self, block_range: BlockRange) -> UUID:
        """Identity of the task for one range."""
        return task_id(self.job_id, self.dataset_key, block_range)

    def is_cell(self, block_range: BlockRange) -> bool:
        """Whether a range is one of the cells this stream's span is cut into."""
        end = self.to_block if self.to_block is not None else MAX_BLOCK
        if not self.from_block <= block_range.start < block_range.end <= end:
            return False
        grid = block_range.start // self.chunk_size * self.chunk_size
        return block_range == BlockRange(max(grid, self.from_block), min(grid + self.chunk_size, end))


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed range on its way to a commit."""

    spec: StreamSpec
    block_range: BlockRange
    lease: Lease
