"""The transaction that replaces blocks of a chain by those of another fork (ADR 0026)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.errors import ForkConflict, Refused
from trace_dagster.registry.connection import Row, Session
from trace_dagster.registry.forks import hide_fork
from trace_dagster.registry.hot_copy import HotTables, block_ranges
from trace_dagster.registry.hot_types import FollowerLease, HotBlock, Reorg
from trace_dagster.registry.hot_writes import RowWriter, admit, insert_chain, remove, require_lease, require_versions


@dataclass(frozen=True, slots=True)
class Replacement:
    """What the follower found: from ``fork_block`` on the chain is another one."""

    lease: FollowerLease
    streams: Mapping[UUID, str]
    """The config_hash of each stream that gets rows."""
    fork_block: int
    branch: Sequence[HotBlock]
    """Linked blocks of the new chain, in ascending order."""
    parent_hash: bytes | None
    """Hash of the block before ``fork_block``; None if that is not known."""
    keep_from: int | None
    """Stored blocks from here on are of the new chain; None if only their link to the branch tells."""


def replace_fork(session: Session, tables: HotTables, fork: Replacement) -> Reorg:
    """Replace the stored blocks from the fork on by the branch, in one transaction.

    Raises LeaseLost, Refused if no stored block differs from the branch, or ForkConflict if the block before the fork
    is not the one that it was found with.
    """
    lease = fork.lease
    require_lease(session, lease)
    session.run("lock_chain", chain_id=lease.chain_id)
    admit(session, lease, fork.streams)
    tasks = [row["task_id"] for row in session.all("tasks_above_fork", **lease.chain, fork_block=fork.fork_block)]
    datasets = [row["dataset_uuid"] for row in session.all("hot_datasets_of_chain", **lease.chain)]
    session.all("lock_hot_streams", datasets=datasets)
    _require_parent(session, fork)
    removed = BlockRange(fork.fork_block, _end_of_removal(session, fork))
    old = _remove(session, lease, datasets, removed, _reason(fork))
    insert_chain(session, lease, fork.branch)
    hidden = hide_fork(session, lease.chain, fork.fork_block, tasks, _reason(fork))
    require_versions(session, lease, fork.branch)
    RowWriter(tables, fork.streams, None).store(session, fork.branch)
    return _record(session, fork, old, hidden)


def _reason(fork: Replacement) -> str:
    return f"the chain was reorganised from block {fork.fork_block} on"


def _require_parent(session: Session, fork: Replacement) -> None:
    """Raise an error unless the stored chain ends before the fork in the block that the branch goes on from."""
    before = fork.fork_block - 1
    stored = _hashes(session, fork.lease, before, fork.fork_block)
    if fork.parent_hash is not None and stored.get(before, fork.parent_hash) != fork.parent_hash:
        raise ForkConflict(
            "the stored chain changed after the fork was found: find the fork again",
            block=before,
            committed=stored[before],
            found=fork.parent_hash,
            versions=(),
        )
    first = fork.branch[0] if fork.branch else None
    if first and first.number == fork.fork_block and stored.get(first.number) == first.hash:
        raise Refused("the stored chain has this block already: there is no fork here", block=first.number)


def _end_of_removal(session: Session, fork: Replacement) -> int:
    """Return the end of the stored blocks that are of the old chain. What links to the branch is of the new one."""
    if fork.keep_from is not None:
        return fork.keep_from
    last = fork.branch[-1]
    rows = session.all("chain_between", **fork.lease.chain, first=last.number + 1, last=last.number + 1)
    return last.number + 1 if rows and bytes(rows[0]["parent_hash"]) == last.hash else MAX_BLOCK


def _remove(
    session: Session, lease: FollowerLease, datasets: Sequence[UUID], removed: BlockRange, reason: str
) -> dict[int, bytes]:
    """Remove stored blocks and their rows; return the hashes of the blocks by number."""
    old = _hashes(session, lease, removed.start, removed.end - 1)
    span = {"range_start": removed.start, "range_end": removed.end}
    session.run("delete_chain", **lease.chain, **span)
    for row in session.all("hot_of_datasets", datasets=datasets, **span):
        remove(session, row, block_ranges(row["blocks"]), "invalidated", hashes=old, reason=reason)
    return old


def _hashes(session: Session, lease: FollowerLease, first: int, last: int) -> dict[int, bytes]:
    rows = session.all("chain_between", **lease.chain, first=first, last=last)
    return {row["block_number"]: bytes(row["block_hash"]) for row in rows}


def _record(session: Session, fork: Replacement, old: dict[int, bytes], hidden: Sequence[Row]) -> Reorg:
    """Record the fork, and show the new head. Raise Refused if nothing was removed."""
    for row in sorted(hidden, key=lambda row: int(row["range_end"])):
        old = {row["range_end"] - 1: row["last_block_hash"], **old}
    if not old:
        raise Refused("nothing is stored that a fork could replace", fork_block=fork.fork_block)
    chain = fork.lease.chain
    head = session.one("chain_head", **chain)
    if head is None:
        raise Refused("a fork without any block of the new chain looks like a node that lags")
    old_head = max(old)
    reorg = Reorg(
        fork_block=fork.fork_block,
        depth=old_head - fork.fork_block + 1,
        old_head=old_head,
        old_hash=old[old_head],
        new_head=head["block_number"],
        new_hash=bytes(head["block_hash"]),
        versions=len(hidden),
    )
    names = ("fork_block", "depth", "old_head", "old_hash", "new_head", "new_hash", "versions")
    session.run("insert_reorg", **chain, **{name: getattr(reorg, name) for name in names})
    session.run("show_latest_head", **chain)
    session.run("rehash_heads", **chain, fork_block=fork.fork_block)
    return reorg
