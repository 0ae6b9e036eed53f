"""Which blocks of a stream are there: committed or hot, and which of its history are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Session


@dataclass(frozen=True, slots=True)
class Presence:
    """The blocks of one stream that queries see, besides the committed ones, and those that they do not see."""

    hot_blocks: int
    """Blocks whose rows are hot and not committed."""
    hot_full_blocks: int
    """Those of them that are in full final cells."""
    missing: tuple[BlockRange, ...]
    """Blocks below the newest present one that are neither committed nor hot."""

    @property
    def missing_blocks(self) -> int:
        """Number of missing blocks."""
        return sum(map(len, self.missing))

    def sentence(self) -> str | None:
        """Return which blocks of the history are not there; None if all are."""
        if not self.missing:
            return None
        first, last = self.missing[0].start, self.missing[-1].end - 1
        if len(self.missing) == 1:
            return f"history: blocks {first:,} to {last:,} are not there yet"
        return f"history: {self.missing_blocks:,} blocks between {first:,} and {last:,} are not there yet"


NOTHING = Presence(0, 0, ())


def presences(session: Session, datasets: Sequence[UUID]) -> dict[UUID, Presence]:
    """Return by stream which blocks of it are hot or missing."""
    return {
        row["dataset_uuid"]: Presence(
            row["hot_blocks"],
            row["hot_full_blocks"],
            tuple(map(BlockRange, row["missing_starts"], row["missing_ends"])),
        )
        for row in session.all("stream_presence", dataset_uuids=list(datasets))
    }
