"""A claimed range: the right to extract and commit one block range of one stream."""

from __future__ import annotations

from dataclasses import dataclass

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.registry.tasks import Lease


@dataclass(frozen=True, slots=True)
class ClaimedRange:
    """One range of a stream, and the lease that was granted for it. It holds names and numbers, no rows."""

    spec: StreamSpec
    block_range: BlockRange
    lease: Lease

    @property
    def facts(self) -> dict[str, object]:
        """The names of the range in log lines."""
        return {"job": self.spec.job_name, "dataset_key": self.spec.dataset_key, "block_range": self.block_range}
