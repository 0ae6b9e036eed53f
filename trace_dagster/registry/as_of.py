"""Cuts: up to which block of each chain an answer goes, if its reader names a block, a time, or a state of finality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.connection import Session
from trace_dagster.registry.snapshot_header import (
    Cut,
    LabelledHead,
    RelationInSnapshot,
    heads_of_chains,
    relations_in_snapshot,
)


@dataclass(frozen=True, slots=True)
class AsOf:
    """What a reader wants to see at most. Where several are given, the lowest block decides."""

    block: int | None = None
    """Rows up to this block, included."""
    time: datetime | None = None
    """Rows up to the last block that is not later. It has a time zone."""
    common: bool = False
    """Rows up to the lowest last block of the relations that the query names, for each chain."""
    finalized_only: bool = False
    """Rows of final blocks."""

    def __post_init__(self) -> None:
        if self.block is not None and not 0 <= self.block < MAX_BLOCK:
            raise InvalidInput("as_of is a block from 0 on", as_of=self.block)
        if self.time is not None and self.time.tzinfo is None:
            raise InvalidInput("as_of needs a time zone", as_of=self.time.isoformat())


NO_CUT = AsOf()
"""All rows."""


def cuts(session: Session, as_of: AsOf, datasets: Collection[UUID], org_id: UUID = DEFAULT_ORG) -> dict[int, Cut]:
    """Return the cut of each chain of these datasets; a chain without one is not cut.

    A number and a time must be settled: the next block of the chain must not change the answer. Raises InvalidInput if
    the number is above the chain's head or the time is not before the head's, if a number is given for several chains,
    or if a derived dataset has no column to cut by. Raises Unavailable if nothing is known yet of what was asked for.
    """
    if as_of == NO_CUT:
        return {}
    by_chain: defaultdict[int, list[RelationInSnapshot]] = defaultdict(list)
    for relation in relations_in_snapshot(session, datasets, {}):
        by_chain[relation.chain_id].append(relation)
    if as_of.block is not None and len(by_chain) > 1:
        named = ", ".join(str(chain_id) for chain_id in by_chain)
        raise InvalidInput(
            f"as_of={as_of.block} is a block of one chain, but the query reads chains {named}: give a time"
        )
    heads = heads_of_chains(session, by_chain, org_id)
    chains = [
        _ReadChain(session, org_id, chain_id, relations, {head.tag: head for head in heads.get(chain_id, ())})
        for chain_id, relations in by_chain.items()
    ]
    found = {chain.chain_id: chain.cut(as_of) for chain in chains}
    return {chain_id: cut for chain_id, cut in found.items() if cut != Cut()}


@dataclass(frozen=True, slots=True)
class _ReadChain:
    """One chain of a query: the relations that the query names, and the chain's heads by tag."""

    session: Session
    org_id: UUID
    chain_id: int
    relations: Sequence[RelationInSnapshot]
    heads: Mapping[str, LabelledHead]

    def cut(self, as_of: AsOf) -> Cut:
        blocks: list[int] = []
        time = None
        if as_of.block is not None:
            self._require_known(as_of.block)
            blocks.append(as_of.block)
        if as_of.time is not None:
            settled = self._block_of(as_of.time)
            time = as_of.time if settled is None else None
            blocks += [] if settled is None else [settled]
        if as_of.common:
            blocks.append(self._common())
        if blocks:
            self._require_column("block_number")
        if time is not None:
            self._require_column("block_timestamp")
        if as_of.finalized_only and (final := self._final()) is not None:
            blocks.append(final)
        return Cut(min(blocks, default=None), time)

    def _require_known(self, block: int) -> None:
        head = self._head()
        if head is None:
            raise InvalidInput(f"no block of chain {self.chain_id} is known yet, so none can be named", as_of=block)
        if block > head:
            raise InvalidInput(
                f"chain {self.chain_id} is at block {head}: as_of must name a block up to it", as_of=block
            )

    def _head(self) -> int | None:
        """Return the newest block that is known: the follower's, or without a follower the planner's."""
        stored = [each.last_block for each in self.relations if each.last_block is not None]
        latest = self.heads.get("latest")
        seen = self._observed()[0] if latest is None else latest.number
        return max(stored if seen is None else [*stored, seen], default=None)

    def _observed(self) -> tuple[int | None, datetime]:
        """Return the newest block that the planner saw, and the time of the database."""
        row = self.session.one("highest_observation", org_id=self.org_id, chain_id=self.chain_id)
        assert row is not None  # an aggregate
        return row["latest"], row["moment"]

    def _block_of(self, time: datetime) -> int | None:
        """Return the last block that is not later; None if the stored hashes do not reach back to it."""
        latest = self.heads.get("latest")
        if latest is not None and latest.block_timestamp is not None and time >= latest.block_timestamp:
            raise InvalidInput(
                f"chain {self.chain_id} is at block {latest.number} of {latest.block_timestamp.isoformat()}:"
                " as_of must name an earlier time",
                as_of=time.isoformat(),
            )
        if time > self._observed()[1]:
            raise InvalidInput("as_of must name a time in the past", as_of=time.isoformat())
        row = self.session.one("last_block_until", org_id=self.org_id, chain_id=self.chain_id, time=time)
        return int(row["block_number"]) if row is not None and row["is_followed"] else None

    def _common(self) -> int:
        last = {each.name: each.last_block for each in self.relations}
        known = [block for block in last.values() if block is not None]
        if len(known) < len(last):
            empty = next(name for name, block in last.items() if block is None)
            raise Unavailable(
                f"{empty} has no block yet, so the relations have no common block: leave it out, or try again later"
            )
        return min(known)

    def _final(self) -> int | None:
        """Return the last final block; None if nothing has to be cut, because only committed rows are read.

        Committed blocks are final, so a head that the follower observed long ago does not hide them.
        """
        if all(each.first_hot is None for each in self.relations):
            return None
        known = [each.last_committed for each in self.relations if each.last_committed is not None]
        if (head := self.heads.get("finalized")) is not None:
            known.append(head.number)
        if not known:
            raise Unavailable(f"no final block of chain {self.chain_id} is known yet: try again later")
        return max(known)

    def _require_column(self, column: str) -> None:
        """Raise InvalidInput if a derived dataset lacks a column; every stream has both."""
        for each in self.relations:
            if each.derived_columns is not None and column not in each.derived_columns:
                raise InvalidInput(f"{each.name} has no column {column}, so as_of cannot cut it: leave it out")
