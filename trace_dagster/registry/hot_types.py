"""The types of hot data: what the follower stores, and what the registry tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from trace_dagster.blocks import BlockRange

Tag = Literal["latest", "safe", "finalized"]


@dataclass(frozen=True, slots=True)
class FollowerLease:
    """The right to change the hot rows of a chain, until another holder takes it over."""

    org_id: UUID
    chain_id: int
    token: int

    @property
    def fence(self) -> dict[str, object]:
        """The values that fence every transaction of the holder."""
        return {"org_id": self.org_id, "chain_id": self.chain_id, "token": self.token}

    @property
    def chain(self) -> dict[str, object]:
        """The values that name the chain."""
        return {"org_id": self.org_id, "chain_id": self.chain_id}


@dataclass(frozen=True, slots=True)
class ChainBlock:
    """A block of the chain as the follower stored it. Hashes have 32 bytes."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class HotRows:
    """Rows of one block of one dataset: the columns that its stream stores, and the values of each row in that order.

    Values are int, bytes, str, bool, float, Decimal, datetime or None.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class HotBlock(ChainBlock):
    """A proven block with its rows, to be stored."""

    level: str
    """The level to which its rows are proven."""
    rows: Mapping[UUID, HotRows] = field(default_factory=dict)
    """By dataset; a dataset that is missing gets no rows of the block."""
    shown_at: datetime | None = None
    """When the follower learned of it; None if it fills a gap."""


@dataclass(frozen=True, slots=True)
class HotSegment:
    """Consecutive stored blocks, each the parent of the next."""

    first: ChainBlock
    last: ChainBlock


@dataclass(frozen=True, slots=True)
class HotState:
    """What is stored of a chain, as of one moment."""

    segments: tuple[HotSegment, ...]
    """In ascending order. Between two of them are blocks that are not stored."""
    recheck_from: int | None
    """A range was to be committed that has another hash at this block: compare the chain with the node from here."""
    blocks: Mapping[UUID, tuple[BlockRange, ...]]
    """Blocks whose rows are hot, of every dataset that has or had hot rows."""
    config_hashes: Mapping[UUID, str]
    """The configuration that the hot rows of these datasets have."""
    committed: Mapping[UUID, tuple[BlockRange, ...]]
    """Committed blocks of every stream of the chain that can have hot rows."""

    @property
    def head(self) -> ChainBlock | None:
        """The newest stored block."""
        return self.segments[-1].last if self.segments else None


@dataclass(frozen=True, slots=True)
class Reorg:
    """A fork that was resolved: the stored blocks from ``fork_block`` to ``old_head`` are other ones now."""

    fork_block: int
    depth: int
    """Blocks from ``fork_block`` to ``old_head``."""
    old_head: int
    old_hash: bytes | None
    """None if only committed versions without a hash reached up to it."""
    new_head: int
    """The newest stored block afterwards."""
    new_hash: bytes
    versions: int
    """Committed versions that left the view."""
