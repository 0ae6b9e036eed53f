"""Finds the branch that an endpoint shows, and decides whether it may replace stored blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import TraceError
from trace_dagster.follow.block_source import BlockSource
from trace_dagster.follow.chain_memory import ChainMemory
from trace_dagster.follow.forks import Fork, StoredHashes, find_fork
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.hot import ChainBlock, HotStore
from trace_dagster.rpc.heads import Head
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.model import Header

MOST_WALKED_BLOCKS = 10_000
"""Headers that are read at most to prove that a head below the stored one is of another chain than the block below."""

LOWER_ASKS = 4
LOWER_PAUSE_SECONDS = 0.3
"""How often every endpoint is asked before a branch is adopted that is not higher than the stored one. In all about a
second, because behind one URL may be several nodes of which one is behind.
"""

_log = component_log("follow")


class Branch(NamedTuple):
    """A proven fork, and the highest block of its branch."""

    fork: Fork
    top: int
    may_replace: bool
    """False if the branch is not higher than the stored chain, which some endpoint still has."""


class BranchSearch:
    """Compares the stored chain with those of endpoints. Changes nothing."""

    def __init__(self, store: HotStore, source: BlockSource, memory: ChainMemory, renew: Callable[[], object]) -> None:
        """``renew`` renews the lease if it is due."""
        self._store, self._source, self._memory, self._renew = store, source, memory, renew

    def is_stored(self, chain_id: int, head: Head) -> bool:
        """Return whether a head at or below the stored one is of the stored chain: then its node is behind."""
        tip = self._memory.head
        if tip is not None and tip.number == head.number:
            return tip.hash == head.hash
        stored = self._store.hashes(chain_id, head.number, head.number)
        return stored[head.number] == head.hash if stored else self._has_stored_below(chain_id, head)

    def endpoint_of(self, head: Head) -> Endpoint | None:
        """Return an endpoint that shows this head, None if none does any more. Raises the error of one that failed."""
        failed: TraceError | None = None
        for endpoint in self._source.endpoints():
            try:
                if self._source.hash_at(endpoint, head.number) == head.hash:
                    return endpoint
            except TraceError as error:
                failed = error
        if failed is not None:
            raise failed
        return None

    def find(self, chain_id: int, endpoint: Endpoint, tops: Sequence[int]) -> Branch | None:
        """Return the branch that an endpoint shows up to one of the blocks ``tops``, in descending order, if it is a
        proven fork; None if the stored chain is the endpoint's.
        """
        tip = self._memory.head
        has_tip = False
        for top in tops:
            fork = self._find_fork(chain_id, endpoint, top)
            if fork is None:
                has_tip |= tip is not None and top >= tip.number
                continue
            if tip is not None and top <= tip.number and not has_tip and not self._is_gone(tip):
                _log.event("branch_left", chain_id=chain_id, endpoint=endpoint.name, block=top, head=tip.number)
                return Branch(fork, top, may_replace=False)
            return Branch(fork, top, may_replace=True)
        return None

    def _has_stored_below(self, chain_id: int, head: Head) -> bool:
        """Return whether an endpoint with this head has the highest stored block below it, which few calls tell. True
        if nothing is stored that a fork could be proven with.
        """
        below = StoredHashes(self._store, chain_id).highest(head.number, self._memory.segments)
        if below is None or head.number - below.number > MOST_WALKED_BLOCKS:
            return True
        for endpoint in self._source.endpoints():
            try:
                shown, there = self._source.hashes_at(endpoint, [head.number, below.number])
            except TraceError:
                continue
            if shown == head.hash:
                return there in below.hashes
        return True

    def _find_fork(self, chain_id: int, endpoint: Endpoint, top: int) -> Fork | None:
        stored = StoredHashes(self._store, chain_id)
        segments = self._memory.segments
        lowest = segments[0].first.number if segments else None

        def read(span: BlockRange) -> Sequence[Header]:
            self._renew()
            return self._source.headers(endpoint, span)

        return find_fork(top, read, lambda span: stored.known(span, lowest))

    def _is_gone(self, tip: ChainBlock) -> bool:
        """Return whether every endpoint has shown repeatedly that the stored head is not of its chain any more."""
        for ask in range(LOWER_ASKS):
            if ask:
                time.sleep(LOWER_PAUSE_SECONDS)
            for endpoint in self._source.endpoints():
                try:
                    if self._source.hash_at(endpoint, tip.number) == tip.hash:
                        return False
                except TraceError:
                    return False  # it may have it
        return True
