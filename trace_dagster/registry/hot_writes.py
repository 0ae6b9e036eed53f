"""The steps of the transactions that store and remove hot blocks. Each transaction locks in one order: the follower's
row, the chain, tasks, the boundaries of blocks, hot streams, versions (ADR 0026).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from uuid import UUID

from trace_dagster.blocks import BlockRange, merged
from trace_dagster.errors import ForkConflict, LeaseLost, Refused
from trace_dagster.registry.changes import Kind, record_change
from trace_dagster.registry.connection import Row, Session
from trace_dagster.registry.forks import conflict_of
from trace_dagster.registry.hot_copy import HotTables, block_ranges, delete_rows, multirange
from trace_dagster.registry.hot_types import ChainBlock, FollowerLease, HotBlock


def require_lease(session: Session, lease: FollowerLease) -> None:
    """Lock the right to write. Raise LeaseLost if another holder took it over."""
    if session.one("fence_follower", **lease.fence) is None:
        raise LeaseLost("another process follows this chain now", chain_id=lease.chain_id)


def admit(session: Session, lease: FollowerLease, datasets: Collection[UUID]) -> None:
    """Let datasets have hot rows. Waits for commits that are under way when there is a new one."""
    found = {row["dataset_uuid"] for row in session.all("admitted_streams", datasets=list(datasets))}
    if not found.issuperset(datasets):
        session.run("lock_chain", chain_id=lease.chain_id)
        session.run("admit_streams", datasets=list(datasets))


def require_links(blocks: Sequence[ChainBlock]) -> None:
    """Raise ValueError unless blocks are consecutive, each the parent of the next."""
    for before, block in pairwise(blocks):
        if block.number != before.number + 1 or block.parent_hash != before.hash:
            raise ValueError(f"block {block.number} is not the child of the block before it, {before.number}")


def require_neighbours(session: Session, lease: FollowerLease, blocks: Sequence[ChainBlock]) -> None:
    """Raise ForkConflict if a stored block with the number of a given one, or next to them, is not of their chain."""
    first, last = blocks[0], blocks[-1]
    given = {block.number: block.hash for block in blocks} | {first.number - 1: first.parent_hash}
    rows = session.all("chain_between", **lease.chain, first=first.number - 1, last=last.number + 1)
    for row in rows:
        number, stored = row["block_number"], bytes(row["block_hash"])
        if number == last.number + 1:
            number, stored = last.number, bytes(row["parent_hash"])
        if stored != given[number]:
            raise ForkConflict(
                "a stored block is not of the chain of these blocks: find the fork",
                block=number,
                committed=stored,
                found=given[number],
                versions=(),
            )


def require_versions(session: Session, lease: FollowerLease, blocks: Sequence[ChainBlock]) -> None:
    """Raise ForkConflict if a committed range of the chain meets these blocks and is not of their chain."""
    if not blocks:
        return
    numbers = [blocks[0].number - 1, *(block.number for block in blocks)]
    hashes = [blocks[0].parent_hash, *(block.hash for block in blocks)]
    found = session.all("versions_on_other_chains", **lease.chain, numbers=numbers, hashes=hashes)
    if found:
        raise conflict_of(found)


def insert_chain(session: Session, lease: FollowerLease, blocks: Sequence[HotBlock]) -> None:
    """Store blocks without their rows."""
    session.run(
        "insert_chain",
        **lease.chain,
        numbers=[block.number for block in blocks],
        hashes=[block.hash for block in blocks],
        parents=[block.parent_hash for block in blocks],
        timestamps=[block.timestamp for block in blocks],
        levels=[block.level for block in blocks],
        shown=[block.shown_at for block in blocks],
    )


class RowWriter:
    """Stores the rows of blocks, dataset by dataset. Their streams are locked by the transaction."""

    def __init__(self, tables: HotTables, streams: Mapping[UUID, str], hot_max_blocks: int | None) -> None:
        self._tables = tables
        self._streams = streams
        self._hot_max_blocks = hot_max_blocks

    def store(self, session: Session, blocks: Sequence[HotBlock]) -> None:
        """Store the rows of blocks that are neither hot nor committed.

        A dataset is left out if its stream has another configuration by now. Raises Refused if a dataset would have
        more hot blocks than allowed.
        """
        if not blocks:
            return
        span = {"range_start": blocks[0].number, "range_end": blocks[-1].number + 1}
        for row in session.all("hot_of_datasets", datasets=list(self._streams), **span):
            if self._streams[row["dataset_uuid"]] == row["wanted_hash"]:
                self._store_dataset(session, row, blocks)

    def _store_dataset(self, session: Session, row: Row, blocks: Sequence[HotBlock]) -> None:
        dataset, hot, count = row["dataset_uuid"], block_ranges(row["blocks"]), row["hot_blocks"]
        if row["config_hash"] != row["wanted_hash"]:
            remove(session, row, block_ranges(row["all_blocks"]), "pruned", reason="its stream has other columns now")
            session.run("configure_hot_stream", dataset_uuid=dataset, config_hash=row["wanted_hash"])
            hot, count = (), 0
        elif row["twice"]:  # committed by a process of an earlier version, which does not know of hot rows
            remove(session, row, block_ranges(row["twice"]), "pruned")
        kept = (*hot, *block_ranges(row["committed"]))
        fresh = [block for block in blocks if dataset in block.rows and not any(block.number in each for each in kept)]
        if not fresh:
            return
        self._require_room(row, count + len(fresh))
        self._tables.copy(session, row["source"], dataset, fresh)
        ranges = merged(BlockRange(block.number, block.number + 1) for block in fresh)
        session.run("add_hot_blocks", dataset_uuid=dataset, blocks=multirange(ranges))
        hashes = {block.number: block.hash for block in fresh}
        record_ranges(session, "hot", dataset, ranges, hashes)

    def _require_room(self, row: Row, blocks: int) -> None:
        if self._hot_max_blocks is not None and blocks > self._hot_max_blocks:
            raise Refused(
                f"stream {row['dataset_key']} would have {blocks} hot blocks, because its ranges are not committed"
                ": look at its failed and waiting ranges in `trace-lite status`, or raise hot_max_blocks",
                hot_max_blocks=self._hot_max_blocks,
            )


def remove(
    session: Session,
    row: Row,
    ranges: Sequence[BlockRange],
    kind: Kind,
    *,
    hashes: Mapping[int, bytes] | None = None,
    reason: str | None = None,
) -> None:
    """Remove the hot rows of blocks of a dataset, and record it. ``row`` has its ``dataset_uuid`` and ``source``."""
    if ranges:
        delete_rows(session, row["source"], row["dataset_uuid"], ranges)
        record_ranges(session, kind, row["dataset_uuid"], ranges, hashes or {}, reason)


def record_ranges(
    session: Session,
    kind: Kind,
    dataset_uuid: UUID,
    ranges: Sequence[BlockRange],
    hashes: Mapping[int, bytes],
    reason: str | None = None,
) -> None:
    """Record a change of each range. ``hashes`` are those of blocks by number; the last one of a range is recorded."""
    for each in ranges:
        record_change(session, kind, dataset_uuid, each, reason=reason, block_hash=hashes.get(each.end - 1))
