"""Hot rows: the newest blocks of a chain, from the follower until their range is committed (schema ``hot``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

HOT_DATASETS = ("blocks", "transactions", "logs")
"""Datasets that have hot rows."""

Tag = Literal["latest", "safe", "finalized"]


@dataclass(frozen=True, slots=True)
class FollowerLease:
    """The right to change the hot rows of a chain, until another holder takes it over."""

    org_id: UUID
    chain_id: int
    token: int


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
