"""The blocks of one stream that are compacted together."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.layout_manifest import layout_folder


@dataclass(frozen=True, slots=True)
class Window:
    """Blocks of one stream that are compacted together, and the size that files should have."""

    dataset_uuid: UUID
    chain_id: int
    dataset_key: str
    dataset_name: str
    """Name of Cryo's dataset."""
    block_range: BlockRange
    target_bytes: int

    def folder(self, layout_id: UUID) -> str:
        """Return the key prefix of a layout's objects, with a trailing slash."""
        span = self.block_range
        return layout_folder(self.chain_id, self.dataset_uuid, span.start, span.end, layout_id)
