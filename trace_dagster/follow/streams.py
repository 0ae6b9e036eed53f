"""Which streams have hot rows, and from which block on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from trace_dagster.config.chain_sync import FollowHead
from trace_dagster.datasets.catalogue import can_be_hot
from trace_dagster.registry.jobs import follow
from trace_dagster.registry.streams import StreamRow, StreamSpec


@dataclass(frozen=True)
class TipStream:
    """A stream whose newest blocks are hot, and its job's settings. Two are equal if they are followed alike."""

    spec: StreamSpec
    settings: FollowHead
    finality_blocks: int | None

    @property
    def dataset_uuid(self) -> UUID:
        """The dataset that the rows belong to."""
        return self.spec.dataset_uuid

    def border(self, finalized: int) -> int:
        """Return the first block that is hot: the start of the cell in which the first block lies that is not final.

        The blocks below it are committed as whole cells.
        """
        cell = (finalized + 1) // self.spec.chunk_size * self.spec.chunk_size
        return max(self.spec.from_block, cell)


def tip_streams(streams: Iterable[StreamRow]) -> dict[int, tuple[TipStream, ...]]:
    """Return the streams with hot rows by chain: enabled, following the head, of a dataset that the decoder gives."""
    found = sorted((each for each in map(_tip_stream, streams) if each is not None), key=_chain)
    return {chain_id: tuple(group) for chain_id, group in groupby(found, key=_chain)}


def _tip_stream(stream: StreamRow) -> TipStream | None:
    settings = follow(stream.job)
    if settings is None or not can_be_hot(stream.dataset.name, stream.columns):
        return None
    if not (stream.enabled and stream.job_enabled) or stream.halted_reason or stream.old_form:
        return None
    spec = StreamSpec(**{name: getattr(stream, name) for name in StreamSpec.__slots__})  # without the plan's progress
    return TipStream(spec, settings, stream.job.finality_blocks)


def _chain(stream: TipStream) -> int:
    return stream.spec.chain_id
