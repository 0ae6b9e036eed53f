"""The follower of one chain: holds its lease, and turns new heads into hot rows, before anything below them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import InvalidInput, LeaseLost, TraceError
from trace_dagster.extraction.blame import LiarRecorder
from trace_dagster.follow.block_source import BlockSource
from trace_dagster.follow.endpoints import BestFirst, TipEndpoints
from trace_dagster.follow.filler import Filler
from trace_dagster.follow.finality import FinalBlocks, FinalityWatch, at_the_tip, final_blocks
from trace_dagster.follow.lease_keeper import LONGEST_STEP_SECONDS, ChainLeaseKeeper
from trace_dagster.follow.pool_heads import PoolHeads
from trace_dagster.follow.streams import TipStream
from trace_dagster.follow.tip_writer import Halt, TipWriter
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.hot import FollowerLease, HotStore
from trace_dagster.rpc.heads import Head
from trace_dagster.rpc.pools import RpcPool

LEASE_SECONDS = 3.0
"""How long a follower that was killed keeps others waiting. It is renewed each third of it."""

READ_SECONDS = 5.0
"""How often the stored state is read again: commits make room, and ask for a comparison with the node."""

IDLE_SECONDS = 0.25
FILLING_SECONDS = 0.01
"""How long the follower waits for a head, with nothing else to do or while blocks below the head are fetched."""

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.02, 0.5
LEFT_SECONDS = 1.0
"""How long after a branch was not adopted the nodes are asked again for their head."""

UNFETCHED_SECONDS = 1.0
"""How long no endpoint may give the blocks of a head before the other endpoints are asked for theirs."""

REPORTED_SECONDS = 2.0
"""How long it may fail before the registry shows the reason."""

_log = component_log("follow")


class FollowerParts(NamedTuple):
    """What the followers of all chains share."""

    store: HotStore
    best_first: BestFirst
    record_lie: LiarRecorder
    halt: Halt
    pool: Callable[[str], RpcPool]
    """Returns a pool by name, asked through the gateway if there is one."""
    holder: str
    """The name under which this process holds leases."""


class _Target(NamedTuple):
    head: Head
    shown_at: datetime


class ChainFollower:
    """Follows one chain. One thread at a time calls :meth:`advance`; any may call :meth:`follow`."""

    def __init__(self, chain_id: int, parts: FollowerParts) -> None:
        self.chain_id = chain_id
        self._parts = parts
        self._endpoints = TipEndpoints(parts.best_first)
        self._source = BlockSource(chain_id, self._endpoints, parts.record_lie)
        self._writer = TipWriter(parts.store, self._source, parts.halt, self._takes_lease)
        self._filler = Filler(self._writer.fetch)
        self._watch = FinalityWatch(self._read_final)
        self._keeper = ChainLeaseKeeper(parts.store, LEASE_SECONDS)
        self._heads = PoolHeads(self._writer.memory.block_seconds)
        self._wanted: Sequence[TipStream] = ()
        self._followed: Sequence[TipStream] = ()
        self._rules: list[tuple[RpcPool, int | None]] = []
        self._lease: FollowerLease | None = None
        self._target: _Target | None = None
        self._look_at: float | None = None
        self._unfetched: Head | None = None
        self._renew_at = self._read_at = float("-inf")
        self._moved_at = time.monotonic()
        self._failures = 0
        self._failing_since: float | None = None
        self._failure: TraceError | None = None
        self._reason: str | None = None

    def follow(self, streams: Sequence[TipStream]) -> None:
        """Follow these streams of the chain from the next step on."""
        self._wanted = streams

    def advance(self, seconds: float, *, until_done: bool = False) -> str:
        """Work for about ``seconds``; with ``until_done`` no longer than until the newest block is stored and nothing
        is missing below it. Return in words what was done.

        A failure is stored with its reason and tried again after a short while, within this call and in the next.
        """
        deadline = time.monotonic() + seconds
        blocks = 0
        while True:
            try:
                if not self._takes_lease():
                    return f"chain {self.chain_id} is followed by another process"
                blocks += self._step(deadline)
                if until_done and self._is_done():
                    break
            except LeaseLost:
                self._lease = None
                self._keeper.stop()
                self._filler.drop()
                return f"the lease of chain {self.chain_id} was lost"
            except TraceError as error:
                self._failed(error, deadline)
            if time.monotonic() >= deadline:
                break
        head = self._writer.memory.head
        why = f", {self._failure}" if self._failure else ""
        return f"chain {self.chain_id}: stored {blocks} blocks, head {head.number if head else 'unknown'}{why}"

    @property
    def has_lease(self) -> bool:
        """True if this process followed the chain when it last looked."""
        return self._lease is not None

    @property
    def is_stuck(self) -> bool:
        """True if no step has begun for LONGEST_STEP_SECONDS. Only right while a thread calls :meth:`advance`."""
        return time.monotonic() - self._moved_at > LONGEST_STEP_SECONDS

    def release(self) -> None:
        """Give the lease back, so that another process can take it."""
        self._filler.drop()
        self._keeper.stop()
        lease, self._lease = self._lease, None
        if lease is not None:
            with suppress(TraceError):
                self._parts.store.release(lease)

    def close(self) -> None:
        """Give the lease back and end the threads."""
        self.release()
        for part in (self._keeper, self._filler, self._watch, self._heads):
            part.close()

    def _takes_lease(self) -> bool:
        """Take or renew the lease; return whether this process has it."""
        self._moved_at = now = time.monotonic()
        if self._lease is not None and now < self._renew_at:
            return True
        if self._lease is not None:
            self._parts.store.renew(self._lease, LEASE_SECONDS)
        else:
            self._lease = self._parts.store.hold(self.chain_id, self._parts.holder, LEASE_SECONDS)
            self._read_at = float("-inf")  # another may have changed the chain
            self._reason = ""  # the stored reason is not known
            self._look_at = now
            self._writer.finalized = None  # it is old: with it, blocks below the border would be fetched
            self._watch.restart()
        self._renew_at = now + LEASE_SECONDS / 3
        if self._lease is not None:
            self._keeper.keep(self._lease)
        return self._lease is not None

    def _step(self, deadline: float) -> int:
        """Do the next thing; return how many blocks were stored."""
        lease = self._lease
        assert lease is not None
        self._prepare(lease)
        head = self._next_head(deadline)
        if head is not None:
            self._target = _Target(head, datetime.now(UTC))
        stored = 0
        if self._target is not None:
            stored = self._writer.adopt(lease, *self._target)
            self._target = None
            self._succeeded()
            if self._writer.has_left_branch:  # a source of heads returns a head once
                self._look_at = time.monotonic() + LEFT_SECONDS
        elif self._filler.is_done:
            stored = self._fill(lease)
        self._observe(lease)
        if self._filler.can_start and (fill := self._writer.next_fill(self._filler.most_blocks)) is not None:
            self._filler.start(fill)
        self._say(lease)
        return stored

    def _prepare(self, lease: FollowerLease) -> None:
        """Take up changed streams, and read what is stored if it may have changed."""
        wanted = self._wanted
        if wanted is not self._followed:
            self._use(wanted)
        now = time.monotonic()
        if now - self._read_at > READ_SECONDS:
            self._writer.read(lease)
            self._read_at = now

    def _use(self, wanted: Sequence[TipStream]) -> None:
        pools = self._pools(wanted)
        self._endpoints.use(list(pools.values()))
        self._heads.use(list(pools.values()))
        rules = dict.fromkeys((each.spec.rpc_pool, each.finality_blocks) for each in wanted)
        self._rules = [(at_the_tip(pools[name]), blocks) for name, blocks in rules if name in pools]
        self._filler.drop()
        self._writer.follow(wanted)
        self._read_at = float("-inf")
        self._followed = wanted

    def _pools(self, wanted: Sequence[TipStream]) -> dict[str, RpcPool]:
        """Return the pools of the streams by name. One without a URL is left out if there are others."""
        found: dict[str, RpcPool] = {}
        wrong: InvalidInput | None = None
        for name in dict.fromkeys(each.spec.rpc_pool for each in wanted):
            try:
                found[name] = self._parts.pool(name)
            except InvalidInput as error:
                wrong = error
        if wrong is not None and not found:
            raise wrong
        return found

    def _next_head(self, deadline: float) -> Head | None:
        """Return a new head, or None if none came while there was nothing else to do."""
        if self._look_at is not None and time.monotonic() >= self._look_at:
            head = self._source.latest(below=self._unfetched)
            self._look_at = self._unfetched = None
            return head
        return self._heads.next(self._patience(deadline))

    def _patience(self, deadline: float) -> float:
        """Return how long to wait for a head."""
        if self._target is not None or self._filler.is_done:
            return 0.0
        if self._filler.is_busy:
            return FILLING_SECONDS
        return max(0.0, min(IDLE_SECONDS, min(deadline, self._renew_at) - time.monotonic()))

    def _fill(self, lease: FollowerLease) -> int:
        fill, found = self._filler.take()
        if isinstance(found, TraceError):
            self._writer.note_unfetched(fill, found)
            return 0
        started = time.monotonic()
        self._writer.write(lease, found)
        self._filler.note_stored(len(found.blocks), time.monotonic() - started)
        self._succeeded()
        return len(found.blocks)

    def _observe(self, lease: FollowerLease) -> None:
        head = self._writer.memory.head
        if head is None:
            return
        final = self._watch.observe(head.number, self._writer.memory.block_seconds() or 0.0)
        if final is not None:
            self._writer.finalized = final.finalized
            is_current = self._failing_since is None and not self._writer.behind
            self._parts.store.observe(
                lease,
                {
                    **({"latest": (head.number, head.hash)} if is_current else {}),
                    "finalized": (final.finalized, None),
                    **({} if final.safe is None else {"safe": (final.safe, None)}),
                },
            )

    def _read_final(self, latest: int) -> FinalBlocks:
        return final_blocks(self._rules, chain_of(self.chain_id), latest)

    def _is_done(self) -> bool:
        return (
            self._writer.memory.head is not None
            and self._writer.finalized is not None
            and self._target is None
            and self._look_at is None
            and self._filler.can_start
        )

    def _succeeded(self) -> None:
        self._failures, self._failing_since, self._failure = 0, None, None

    def _failed(self, error: TraceError, deadline: float) -> None:
        """Wait a moment before the next try, and read the stored state again: it may be another than remembered."""
        now = time.monotonic()
        self._failures += 1
        self._failing_since = self._failing_since or now
        self._failure = error
        self._read_at = float("-inf")
        self._filler.drop()
        if self._target is not None and self._writer.is_unfetched and now - self._failing_since > UNFETCHED_SECONDS:
            self._heads.pass_over()
            self._unfetched, self._look_at = self._target.head, now
        log = _log.warning if now - self._failing_since > REPORTED_SECONDS else _log.debug
        log("follower_failed", chain_id=self.chain_id, reason=error, failures=self._failures)
        with suppress(TraceError):  # it may be the registry that fails
            if self._lease is not None:
                self._say(self._lease)
        backoff = min(FIRST_BACKOFF_SECONDS * 2 ** min(self._failures - 1, 10), LONGEST_BACKOFF_SECONDS)
        time.sleep(max(0.0, min(backoff, deadline - time.monotonic())))

    def _say(self, lease: FollowerLease) -> None:
        """Store why the follower does not go on, or that it does."""
        is_failing = self._failing_since is not None and time.monotonic() - self._failing_since > REPORTED_SECONDS
        reason = str(self._failure) if is_failing and self._failure else self._writer.notes
        if reason is None and self._writer.finalized is None and self._watch.failure is not None:
            reason = str(self._watch.failure)
        if reason != self._reason:
            self._parts.store.stop(lease, reason)
            self._reason = reason
