"""Stores what the chain's nodes show: new blocks above the head, blocks of gaps below it, and branches after a fork."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import LearnedForms
from trace_dagster.errors import ForkConflict, LeaseLost, TraceError, Unavailable, UnknownFormat
from trace_dagster.extraction.retry_rules import ANOTHER_ENDPOINT
from trace_dagster.follow.block_rows import RowBuilder
from trace_dagster.follow.block_source import BlockSource, Fetched
from trace_dagster.follow.branch_search import BranchSearch
from trace_dagster.follow.chain_memory import ChainMemory
from trace_dagster.follow.fill import Fill, next_fill
from trace_dagster.follow.forks import Fork
from trace_dagster.follow.streams import TipStream
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.hot import HOT_MAX_BLOCKS, ChainBlock, FollowerLease, HotBlock, HotStore, Reorg
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.rpc.heads import Head
from trace_dagster.rpc.pools import Endpoint

JOINED_BLOCKS = 16
"""A head at most so many blocks above the stored one is stored with the blocks between. Beyond that it comes first, if
its chain has the stored one.
"""

MOST_BRANCH_BLOCKS = 256
"""Blocks of a new branch that are stored with the fork. Of a longer one the newest are, and the others fill a gap."""

Halt = Callable[[StreamSpec, str], None]
"""Stops a stream until its job is resumed."""

_log = component_log("follow")


class TipWriter:
    """Changes the hot rows of one chain. One thread at a time uses it, except for :meth:`fetch`."""

    def __init__(self, store: HotStore, source: BlockSource, halt: Halt, renew: Callable[[], object]) -> None:
        """``renew`` renews the lease if it is due."""
        self.memory = ChainMemory()
        self.has_left_branch = False
        """True if the last head was not stored, because it is of another branch: it may have to be later."""
        self.shown: int | None = None
        """The number of the head that a node showed last."""
        self.is_unfetched = False
        """True if no endpoint gave the blocks of the last head."""
        self.finalized: int | None = None
        """The last block that counts as final; None before it was observed."""
        self._store, self._source, self._halt = store, source, halt
        self._search = BranchSearch(store, source, self.memory, renew)
        self._streams: dict[UUID, TipStream] = {}
        self._builders: dict[UUID, RowBuilder] = {}
        self._learned = LearnedForms()
        self._left_out: dict[UUID, str] = {}
        self._full: dict[UUID, str] = {}
        self._unfetched = ""

    @property
    def notes(self) -> str | None:
        """Why blocks of some stream are not hot; None if all are."""
        left_out = [text for dataset, text in self._left_out.items() if self.memory.left_out.get(dataset)]
        unfetched = [self._unfetched] if self.memory.has_put_off else []
        behind = []
        if self.behind > JOINED_BLOCKS and self.memory.head is not None:
            behind = [f"the chain's nodes are at block {self.shown}, below the stored head {self.memory.head.number}"]
        return "; ".join([*behind, *self._full.values(), *left_out, *unfetched]) or None

    @property
    def behind(self) -> int:
        """By how many blocks the head that a node showed last is below the stored one."""
        tip = self.memory.head
        return 0 if tip is None or self.shown is None else max(0, tip.number - self.shown)

    def follow(self, streams: Iterable[TipStream]) -> None:
        """Store rows of these streams from now on."""
        before = self._builders
        self._streams = {each.dataset_uuid: each for each in streams}
        self._builders = {
            dataset: before[dataset]
            if dataset in before and before[dataset].spec == each.spec
            else RowBuilder(each.spec, self._learned)
            for dataset, each in self._streams.items()
        }
        self.memory.left_out.clear()
        self._left_out.clear()

    def read(self, lease: FollowerLease) -> None:
        """Read what is stored. Drop rows of a stream whose columns have changed since."""
        state = self._store.state(lease.chain_id)
        outdated = [
            dataset
            for dataset, stored in state.config_hashes.items()
            if dataset in self._streams and stored != self._streams[dataset].spec.config_hash and state.blocks[dataset]
        ]
        for dataset in outdated:
            self._store.drop(lease, dataset, "its stream has other columns now")
        self.memory.read(self._store.state(lease.chain_id) if outdated else state)
        if state.recheck_from is not None:
            self.recheck(lease, state.recheck_from)

    def adopt(self, lease: FollowerLease, head: Head, shown_at: datetime) -> int:
        """Store the block that a node shows as its head, and those between. Return how many blocks that were.

        A head of another branch is adopted if the fork is proven and its branch is higher than the stored chain, or no
        endpoint has the stored head any more. A head far above the stored one comes before the blocks between, if its
        endpoint has both blocks; otherwise the fork is resolved first. Raises the error of the endpoints, LeaseLost.
        """
        tip = self.memory.head
        self.shown = head.number
        self.has_left_branch = self.is_unfetched = False
        if tip is not None and head.number <= tip.number:
            return 0 if self._search.is_stored(lease.chain_id, head) else self._resolve_at_any(lease, head)
        joined = tip is not None and head.number <= tip.number + JOINED_BLOCKS
        first = tip.number + 1 if tip is not None and joined else head.number
        piece = BlockRange(first, head.number + 1)
        builders = [self._builders[dataset] for dataset in self._taking(len(piece))]
        self.is_unfetched = True
        found = self._source.fetch(piece, builders, shown_at)
        self.is_unfetched = False
        if tip is None or joined:
            return self.write(lease, found)
        try:
            return self.write(lease, found) if self._is_above(found, tip) else self._leave_branch(lease, found, tip)
        except ANOTHER_ENDPOINT as error:
            self._source.pass_over(found.endpoint, error)
            raise

    def next_fill(self, most: int) -> Fill | None:
        """Return the blocks below the head that are fetched next, None if none are missing or finality is not known."""
        tip = self.memory.head
        if tip is None or self.finalized is None:
            return None
        finalized, streams = self.finalized, self._taking(most)
        starts = {dataset: each.border(finalized) for dataset, each in streams.items()}
        return next_fill(tip.number, self.memory.wanted(starts), most)

    def fetch(self, fill: Fill) -> Fetched:
        """Fetch the blocks of a gap. Any thread may call this."""
        builders = [each for dataset, each in self._builders.items() if dataset in fill.datasets]
        return self._source.fetch(fill.block_range, builders)

    def note_unfetched(self, fill: Fill, error: TraceError) -> None:
        """Fetch a block later that no endpoint gave by itself, so that those below it need not wait for it."""
        _log.debug("fill_failed", blocks=str(fill.block_range), reason=error)
        if len(fill.block_range) == 1:
            self.memory.put_off(fill.block_range, fill.datasets)
            self._unfetched = f"block {fill.block_range.start} is missing: {error}"

    def recheck(self, lease: FollowerLease, block: int) -> None:
        """Compare the stored chain with the nodes, because a block that was to be committed has another hash.

        Raises the last endpoint's error if none could be compared.
        """
        tip = self.memory.head
        if tip is not None:
            tops = _descending(tip.number, min(block + 1, tip.number), min(block, tip.number))
            self._compare_at_any(lease, tops)
        self._store.rechecked(lease)

    def _compare_at_any(self, lease: FollowerLease, tops: Sequence[int]) -> None:
        """Compare the stored chain with the first endpoint that can be compared."""
        failed: TraceError | None = None
        for endpoint in self._source.endpoints():
            try:
                self._resolve(lease, endpoint, tops)
            except LeaseLost:
                raise
            except TraceError as error:
                self._source.pass_over(endpoint, error)
                failed = error
                continue
            return
        raise failed or Unavailable("the pools of the streams have no endpoint", chain_id=lease.chain_id)

    def write(self, lease: FollowerLease, found: Fetched) -> int:
        """Store blocks, or the branch of their endpoint if they are not of the stored chain. Return how many.

        Raises Unavailable if they are of another chain and no fork is proven, LeaseLost.
        """
        blocks = [self._trimmed(each) for each in found.blocks]
        most = max((each.settings.hot_max_blocks for each in self._streams.values()), default=HOT_MAX_BLOCKS)
        try:
            self._require_child(blocks[0])
            self._store.store(lease, self._config_hashes(blocks), blocks, hot_max_blocks=most)
        except ForkConflict as conflict:
            tip = self.memory.head
            tops = _descending(blocks[-1].number, tip.number if tip else 0, conflict.block)
            if stored := self._resolve(lease, found.endpoint, tops):
                return stored
            self._source.pass_over(found.endpoint, conflict)
            raise Unavailable(f"rpc endpoint {found.endpoint.name} shows another chain: {conflict}") from conflict
        self._note(found, blocks)
        return len(blocks)

    def _is_above(self, found: Fetched, tip: ChainBlock) -> bool:
        """Return whether the endpoint of a new head has the stored one too. Raises Unavailable if its head changed."""
        head = found.blocks[-1]
        there, above = self._source.hashes_at(found.endpoint, [tip.number, head.number])
        if above != head.hash:
            raise Unavailable(f"rpc endpoint {found.endpoint.name} shows another block now", block=head.number)
        return there == tip.hash

    def _leave_branch(self, lease: FollowerLease, found: Fetched, tip: ChainBlock) -> int:
        """Adopt the branch of a head far above the stored one, which is of another. Return how many were stored.

        Raises Unavailable if no fork is proven.
        """
        head = found.blocks[-1].number
        stored = self._resolve(lease, found.endpoint, _descending(head, tip.number))
        if not stored:
            raise Unavailable(f"rpc endpoint {found.endpoint.name} shows another block now", block=tip.number)
        now = self.memory.head
        self.has_left_branch = now is not None and now.number < head
        return stored

    def _require_child(self, block: HotBlock) -> None:
        """Raise ForkConflict if the parent of a block above the stored head is not that head."""
        tip = self.memory.head
        if tip is not None and block.number == tip.number + 1 and block.parent_hash != tip.hash:
            raise ForkConflict(
                "the block above the stored head is not its child",
                block=tip.number,
                committed=tip.hash,
                found=block.parent_hash,
                versions=(),
            )

    def _note(self, found: Fetched, blocks: Sequence[HotBlock]) -> None:
        datasets = {dataset for each in blocks for dataset in each.rows} | set(found.left_out)
        self.memory.add(blocks, datasets)
        for dataset, error in found.left_out.items():
            stream = self._streams[dataset].spec
            self._left_out[dataset] = f"{stream.dataset_key}: {error}"
            if stream.requires_full and isinstance(error, UnknownFormat):
                self._halt(stream, str(error))

    def _trimmed(self, block: HotBlock) -> HotBlock:
        """Return a block without the rows of streams that begin later, or have it committed."""
        rows = {
            dataset: rows
            for dataset, rows in block.rows.items()
            if block.number >= self._streams[dataset].spec.from_block
            and not self.memory.is_committed(dataset, block.number)
        }
        return block if len(rows) == len(block.rows) else replace(block, rows=rows)

    def _config_hashes(self, blocks: Sequence[HotBlock]) -> Mapping[UUID, str]:
        datasets = {dataset for each in blocks for dataset in each.rows}
        return {dataset: self._streams[dataset].spec.config_hash for dataset in datasets}

    def _taking(self, blocks: int) -> dict[UUID, TipStream]:
        """Return the streams that have room for so many blocks, and note why the others have none."""
        self._full = {
            dataset: f"{each.spec.dataset_key}: its final ranges are not committed, see their failures in status"
            f" hot_max_blocks={each.settings.hot_max_blocks}"
            for dataset, each in self._streams.items()
            if self.memory.hot_blocks(dataset) + blocks > each.settings.hot_max_blocks
        }
        return {dataset: each for dataset, each in self._streams.items() if dataset not in self._full}

    def _resolve_at_any(self, lease: FollowerLease, head: Head) -> int:
        """Adopt the branch of a head that is not higher than the stored one, if its endpoint still shows it."""
        endpoint = self._search.endpoint_of(head)
        return self._resolve(lease, endpoint, [head.number]) if endpoint is not None else 0

    def _resolve(self, lease: FollowerLease, endpoint: Endpoint, tops: Sequence[int]) -> int:
        """Adopt the branch that an endpoint shows up to one of the blocks ``tops``, if it is a proven fork. Return how
        many blocks were stored; 0 if there is none that may be adopted.
        """
        branch = self._search.find(lease.chain_id, endpoint, tops)
        if branch is None:
            return 0
        if not branch.may_replace:
            self.has_left_branch = True
            return 0
        return self._adopt_branch(lease, endpoint, branch.fork, branch.top)

    def _adopt_branch(self, lease: FollowerLease, endpoint: Endpoint, fork: Fork, top: int) -> int:
        """Replace the stored blocks from the fork on by the endpoint's, in one transaction. Return how many those
        are.
        """
        start = max(fork.fork_block, top + 1 - MOST_BRANCH_BLOCKS)
        found = self._source.fetch_at(endpoint, BlockRange(start, top + 1), list(self._builders.values()))
        if self._source.hash_at(endpoint, top) != found.blocks[-1].hash:
            raise Unavailable(f"rpc endpoint {endpoint.name} shows another block now", block=top)
        blocks = [self._from_start(each) for each in found.blocks]
        parent = fork.hashes.get(fork.fork_block - 1)
        if fork.hashes.get(start - 1) not in (None, blocks[0].parent_hash):
            raise Unavailable(f"the chain of rpc endpoint {endpoint.name} forked again", block=fork.fork_block)
        reorg = self._store.replace(lease, self._config_hashes(blocks), fork.fork_block, blocks, parent_hash=parent)
        self._log(lease, endpoint, reorg)
        self.memory.read(self._store.state(lease.chain_id))
        self._note(found, blocks)
        return len(blocks)

    def _from_start(self, block: HotBlock) -> HotBlock:
        """Return a block without the rows of streams that begin later."""
        rows = {each: rows for each, rows in block.rows.items() if block.number >= self._streams[each].spec.from_block}
        return replace(block, rows=rows)

    @staticmethod
    def _log(lease: FollowerLease, endpoint: Endpoint, reorg: Reorg) -> None:
        _log.event(
            "reorganised",
            chain_id=lease.chain_id,
            endpoint=endpoint.name,
            fork_block=reorg.fork_block,
            depth=reorg.depth,
            old_head=reorg.old_head,
            new_head=reorg.new_head,
            versions=reorg.versions or None,
        )


def _descending(*blocks: int) -> list[int]:
    return sorted(set(blocks), reverse=True)
