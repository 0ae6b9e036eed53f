"""Hot rows: the newest blocks of a chain, from the follower until their range is committed (schema ``hot``).

Each write states the fencing token of the chain's follower, and is one transaction: readers see a block with its rows
of every dataset, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from trace_dagster.datasets.catalogue import HOT_DATASETS
from trace_dagster.errors import LeaseLost
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.connection import Database, Row, storable
from trace_dagster.registry.hot_copy import HotTables, block_ranges
from trace_dagster.registry.hot_fork import Replacement, replace_fork
from trace_dagster.registry.hot_types import (
    ChainBlock,
    FollowerLease,
    HotBlock,
    HotRows,
    HotSegment,
    HotState,
    Reorg,
    Tag,
)
from trace_dagster.registry.hot_writes import (
    RowWriter,
    admit,
    insert_chain,
    remove,
    require_lease,
    require_links,
    require_neighbours,
    require_versions,
)

__all__ = [
    "ChainBlock",
    "FollowerLease",
    "HotBlock",
    "HotRows",
    "HotSegment",
    "HotState",
    "HotStore",
    "Reorg",
    "Tag",
]

HOT_MAX_BLOCKS = 50_000
"""Most hot blocks of a dataset, and hashes that are kept below the head, unless the job says otherwise."""


MOST_STORED_BLOCKS = 500
"""Most blocks of one :meth:`HotStore.store`: it locks the boundary of each, and Postgres has room for so many locks."""


class HotStore:
    """Stores what the follower of a chain proves, under its lease."""

    def __init__(self, database: Database, org_id: UUID = DEFAULT_ORG) -> None:
        self._database = database
        self._org_id = org_id
        self._tables = HotTables()

    def hold(self, chain_id: int, holder: str, ttl_seconds: float) -> FollowerLease | None:
        """Grant the lease of a chain, or return None while another holder has it. Earlier holders are fenced."""
        with self._database.transaction() as session:
            row = session.one("hold_chain", **self._chain(chain_id), holder=storable(holder), ttl_seconds=ttl_seconds)
        return FollowerLease(self._org_id, chain_id, row["token"]) if row else None

    def renew(self, lease: FollowerLease, ttl_seconds: float) -> None:
        """Renew a lease. Raise LeaseLost if another holder took it over."""
        with self._database.transaction() as session:
            if not session.run("renew_follower", **lease.fence, ttl_seconds=ttl_seconds):
                raise LeaseLost("another process follows this chain now", chain_id=lease.chain_id)

    def release(self, lease: FollowerLease) -> None:
        """Give a lease back, so that another holder need not wait. No effect if it was taken over."""
        with self._database.transaction() as session:
            session.run("release_follower", **lease.fence)

    def state(self, chain_id: int) -> HotState:
        """Return what is stored of a chain, as of one moment."""
        chain = self._chain(chain_id)
        with self._database.snapshot() as session:
            segments = _segments(session.all("chain_segments", **chain))
            follower = session.one("follower", **chain)
            streams = session.all("hot_states", **chain, sources=list(HOT_DATASETS))
        hot = [row for row in streams if row["config_hash"] is not None]
        return HotState(
            segments=segments,
            recheck_from=follower["recheck_from"] if follower else None,
            blocks={row["dataset_uuid"]: block_ranges(row["blocks"]) for row in hot},
            config_hashes={row["dataset_uuid"]: row["config_hash"] for row in hot},
            committed={row["dataset_uuid"]: block_ranges(row["committed"]) for row in streams},
        )

    def hashes(self, chain_id: int, first: int, last: int) -> dict[int, bytes]:
        """Return the hashes of stored blocks by number, both ends included."""
        with self._database.transaction() as session:
            rows = session.all("chain_between", **self._chain(chain_id), first=first, last=last)
        return {row["block_number"]: bytes(row["block_hash"]) for row in rows}

    def boundaries(self, chain_id: int, below: int, limit: int) -> list[tuple[int, bytes]]:
        """Return the last block of visible versions with its hash, in descending order, of blocks below ``below``."""
        with self._database.transaction() as session:
            rows = session.all("boundaries_of_versions", **self._chain(chain_id), below=below, limit=limit)
        return [(row["block"], bytes(row["last_block_hash"])) for row in rows]

    def store(
        self,
        lease: FollowerLease,
        streams: Mapping[UUID, str],
        blocks: Sequence[HotBlock],
        *,
        hot_max_blocks: int = HOT_MAX_BLOCKS,
    ) -> None:
        """Store linked blocks with their rows, in ascending order. ``streams`` has the config_hash by dataset.

        Blocks that are stored already get the rows of datasets that lack them. Rows of committed blocks, and of a
        stream that has another configuration by now, are left out. Rows of an earlier configuration are removed.

        Raises LeaseLost, ForkConflict if a stored or committed neighbour has another hash, Refused if a dataset would
        have more than ``hot_max_blocks`` hot blocks, ValueError if the blocks do not link or are more than
        MOST_STORED_BLOCKS.
        """
        if not blocks:
            return
        if len(blocks) > MOST_STORED_BLOCKS:
            raise ValueError(f"{len(blocks)} blocks are too many for one transaction: at most {MOST_STORED_BLOCKS}")
        require_links(blocks)
        with self._database.transaction() as session:
            require_lease(session, lease)
            admit(session, lease, streams)
            first, last = blocks[0].number, blocks[-1].number
            session.run("lock_block_borders", chain_id=lease.chain_id, first=first, last=last)
            session.all("lock_hot_streams", datasets=list(streams))
            require_neighbours(session, lease, blocks)
            require_versions(session, lease, blocks)
            insert_chain(session, lease, blocks)
            RowWriter(self._tables, streams, hot_max_blocks).store(session, blocks)
            session.run("show_latest_head", **lease.chain)
            session.run("prune_chain", **lease.chain, below=last - hot_max_blocks)

    def replace(
        self,
        lease: FollowerLease,
        streams: Mapping[UUID, str],
        fork_block: int,
        branch: Sequence[HotBlock],
        *,
        parent_hash: bytes | None = None,
        keep_from: int | None = None,
    ) -> Reorg:
        """Replace the blocks from ``fork_block`` on by those of another fork, in one transaction.

        Hot rows of the old blocks are removed, and committed versions of every dataset of the chain that touch them
        leave the view and are queued again. ``branch`` has linked blocks in ascending order. It usually begins at
        ``fork_block``; if it begins later, the blocks before it are a gap, and ``parent_hash`` tells the block before
        the fork. Stored blocks above the branch stay if they link to it, or from ``keep_from`` on, which an empty
        branch needs.

        Raises LeaseLost, Refused if no stored block differs from the branch, ForkConflict if the block before the fork
        is not stored as given, ValueError if the blocks do not link.
        """
        require_links(branch)
        _require_place(fork_block, branch, parent_hash, keep_from)
        if parent_hash is None and branch and branch[0].number == fork_block:
            parent_hash = branch[0].parent_hash
        fork = Replacement(lease, streams, fork_block, branch, parent_hash, keep_from)
        with self._database.transaction() as session:
            return replace_fork(session, self._tables, fork)

    def observe(self, lease: FollowerLease, heads: Mapping[Tag, tuple[int, bytes | None]]) -> None:
        """Store what the node calls safe and finalized. ``latest`` only confirms the newest stored block.

        A hash that is None is that of the stored block, if there is one. Raise LeaseLost.
        """
        with self._database.transaction() as session:
            require_lease(session, lease)
            for tag, (block, found) in heads.items():
                if tag == "latest":
                    session.run("confirm_latest_head", **lease.chain, block=block)
                else:
                    session.run("observe_tag", **lease.chain, tag=tag, block=block, hash=found)

    def stop(self, lease: FollowerLease, reason: str | None) -> None:
        """Store why the chain is not followed any further; None if it is. No effect if the lease was taken over."""
        with self._database.transaction() as session:
            session.run("stop_follower", **lease.fence, reason=None if reason is None else storable(reason))

    def rechecked(self, lease: FollowerLease) -> None:
        """Store that the chain was compared with the node. No effect if the lease was taken over."""
        with self._database.transaction() as session:
            session.run("rechecked_chain", **lease.fence)

    def drop(self, lease: FollowerLease, dataset_uuid: UUID, reason: str) -> None:
        """Remove all hot rows of a dataset. Raise LeaseLost."""
        with self._database.transaction() as session:
            require_lease(session, lease)
            session.all("lock_hot_streams", datasets=[dataset_uuid])
            for row in session.all("hot_of_datasets", datasets=[dataset_uuid], range_start=0, range_end=0):
                remove(session, row, block_ranges(row["all_blocks"]), "pruned", reason=reason)

    def _chain(self, chain_id: int) -> dict[str, object]:
        return {"org_id": self._org_id, "chain_id": chain_id}


def _require_place(
    fork_block: int, branch: Sequence[HotBlock], parent_hash: bytes | None, keep_from: int | None
) -> None:
    """Raise ValueError unless the branch lies between the block before the fork and the blocks that are kept."""
    if not branch and keep_from is None:
        raise ValueError("a fork needs blocks of the new chain, or stored ones that are kept")
    if branch and branch[0].number == fork_block and parent_hash not in (None, branch[0].parent_hash):
        raise ValueError(f"the branch does not link to the block before the fork at {fork_block}")
    if branch and branch[0].number < fork_block:
        raise ValueError(f"the branch begins at {branch[0].number}, below the fork at {fork_block}")
    if keep_from is not None and keep_from <= (branch[-1].number if branch else fork_block):
        raise ValueError(f"blocks from {keep_from} on cannot be kept: they are replaced")


def _segments(rows: Sequence[Row]) -> tuple[HotSegment, ...]:
    """Return segments from the rows of their first and last blocks, which are one row for a single block."""
    firsts = [_block(row) for row in rows if row["is_first"]]
    lasts = [_block(row) for row in rows if row["is_last"]]
    return tuple(map(HotSegment, firsts, lasts))


def _block(row: Row) -> ChainBlock:
    return ChainBlock(row["block_number"], bytes(row["block_hash"]), bytes(row["parent_hash"]), row["block_timestamp"])
