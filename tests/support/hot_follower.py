"""A follower over a made-up node, as short as it can be: it stores new blocks, fills gaps, and resolves forks."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.hot_chain import CHAIN, MadeUpChain, hashes_of
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import ForkConflict
from trace_dagster.registry.connection import Database
from trace_dagster.registry.hot import MOST_STORED_BLOCKS, FollowerLease, HotStore
from trace_dagster.registry.streams import StreamRow


class ModelFollower:
    """Follows the node's chain with what the registry offers to a follower, and nothing else."""

    def __init__(self, database: Database, streams: Mapping[str, StreamRow], *, logs: int = 1) -> None:
        self.store = HotStore(database)
        self.streams = streams
        self._logs = logs
        self._database = database

    def hold(self, holder: str) -> FollowerLease | None:
        return self.store.hold(CHAIN, holder, 60)

    def put(self, lease: FollowerLease, node: MadeUpChain, first: int, end: int) -> None:
        """Store the node's blocks; a fork is resolved first."""
        try:
            self._store(lease, node, first, end)
        except ForkConflict:
            self.settle(lease, node, end)
            self._store(lease, node, first, end)

    def _store(self, lease: FollowerLease, node: MadeUpChain, first: int, end: int) -> None:
        for piece in BlockRange(first, end).split(MOST_STORED_BLOCKS) if first < end else ():
            blocks = node.blocks(piece.start, piece.end, self.streams, self._logs)
            self.store.store(lease, hashes_of(self.streams), blocks)

    def settle(self, lease: FollowerLease, node: MadeUpChain, end: int, hot_blocks: int = 8) -> None:
        """Compare everything that is stored with the node's chain, whose blocks end before ``end``, and replace what
        differs. At most ``hot_blocks`` blocks come with the fork; the others before them are a gap.
        """
        fork_block = self._fork_block(node)
        if fork_block is not None:
            first = max(fork_block, end - hot_blocks)
            parent = node.hash(fork_block - 1) if fork_block else None
            branch = node.blocks(first, max(end, first + 1), self.streams, self._logs)
            self.store.replace(lease, hashes_of(self.streams), fork_block, branch, parent_hash=parent)
        self.store.rechecked(lease)

    def fill(self, lease: FollowerLease, node: MadeUpChain, first: int, end: int) -> None:
        """Store all of the node's blocks from ``first`` on, from the newest downwards."""
        self.settle(lease, node, end)
        for number in reversed(range(first, end)):
            self.put(lease, node, number, number + 1)

    def _fork_block(self, node: MadeUpChain) -> int | None:
        stored = self.store.hashes(CHAIN, 0, 1000)
        wrong = [number for number, found in stored.items() if found != node.hash(number)]
        bounds = self.store.boundaries(CHAIN, 1000, 1000)
        right = {number for number, found in bounds if found == node.hash(number)}
        for number, _ in bounds:
            if number not in right:  # the first block that differs lies in the range: its start is as good
                below = [other for other in right if other < number]
                wrong.append(max(below, default=-1) + 1)
        fork_block = min(wrong, default=None)
        while fork_block is not None and stored.get(fork_block) == node.hash(fork_block):
            fork_block += 1
        return fork_block
