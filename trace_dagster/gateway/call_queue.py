"""The calls that wait to be sent to one endpoint, and when the next ones are sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum

from trace_dagster.gateway.batches import is_heavy
from trace_dagster.gateway.jsonrpc import Answer

ANY_BATCH = 1 << 30


class Rank(IntEnum):
    """Which calls are sent first."""

    NEWEST = 0
    """About the newest blocks; an answer that comes late is of no use."""
    RECENT = 1
    """About many blocks near the tip, which the follower still lacks."""
    OTHER = 2


class QueuedCall:
    """One queued call. If its callers cancel ``answer``, the call is not sent any more."""

    __slots__ = (
        "answer",
        "first_sent",
        "is_numbered",
        "largest_batch",
        "method",
        "nulls",
        "params",
        "rank",
        "reason",
        "tries",
        "under_way",
        "waiters",
    )

    def __init__(
        self,
        method: str,
        params: bytes,
        answer: asyncio.Future[Answer],
        *,
        is_numbered: bool,
        rank: Rank = Rank.OTHER,
    ) -> None:
        self.method = method
        self.params = params
        self.answer = answer
        self.rank = rank
        self.is_numbered = is_numbered
        """True if the call is about a block by number: null may then mean that a replica is behind."""
        self.waiters = 0
        self.largest_batch = ANY_BATCH
        """Calls of the largest batch that it may be sent in; smaller after each batch that failed."""
        self.tries = 0
        self.nulls = 0
        self.under_way = 0
        """HTTP requests that carry it now."""
        self.first_sent = 0.0
        self.reason = ""
        """Why it was not answered when it was last sent; empty before."""


class CallQueue:
    """Calls in lanes: each heavy method has its own, so that its large answers do not delay other calls.

    The lanes of calls about the newest and about recent blocks come before all others.
    """

    def __init__(self) -> None:
        self._first: dict[Rank, deque[QueuedCall]] = {Rank.NEWEST: deque(), Rank.RECENT: deque()}
        self._lanes: dict[str, deque[QueuedCall]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._all()))

    def add(self, call: QueuedCall) -> None:
        """Add a call at the end of its lane."""
        self._lane(call).append(call)

    def add_first(self, call: QueuedCall) -> None:
        """Return a call that was sent to the front of its lane."""
        self._lane(call).appendleft(call)

    def next_lane(self, *, is_newest_only: bool = False) -> deque[QueuedCall] | None:
        """Return the lane of the first rank, else the one that waited longest since its last turn.

        Drops calls whose callers have left. Returns None if no call waits, or none that may be sent.
        """
        for rank, lane in self._first.items():
            if _has_calls(lane):
                return None if is_newest_only and rank is not Rank.NEWEST else lane
        for name, lane in [] if is_newest_only else list(self._lanes.items()):
            if _has_calls(lane):
                self._lanes[name] = self._lanes.pop(name)
                return lane
        return None

    def drain(self) -> Iterator[QueuedCall]:
        """Yield every call and empty the queue."""
        for lane in self._all():
            yield from lane
            lane.clear()

    def _all(self) -> list[deque[QueuedCall]]:
        return [*self._first.values(), *self._lanes.values()]

    def _lane(self, call: QueuedCall) -> deque[QueuedCall]:
        if call.rank in self._first:
            return self._first[call.rank]
        return self._lanes.setdefault(call.method if is_heavy(call.method) else "", deque())


def _has_calls(lane: deque[QueuedCall]) -> bool:
    """Return whether a call of a lane waits. Drops the first calls whose callers have left."""
    while lane and lane[0].answer.done():
        lane.popleft()
    return bool(lane)


def batch_of(lane: deque[QueuedCall], most: int) -> int:
    """Return how many of the first calls of a lane may be sent in one batch, up to ``most``."""
    taken = 0
    while taken < most:
        most = min(most, max(lane[taken].largest_batch, taken))
        taken += 1
    return most


class FlushTimer:
    """Runs ``flush`` soon, or after a delay; a request to run soon replaces a delay."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._handle: asyncio.Handle | None = None

    def soon(self) -> None:
        """Flush after this turn of the event loop, when all its calls are queued."""
        if isinstance(self._handle, asyncio.TimerHandle):
            self.cancel()
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._run)

    def within(self, seconds: float) -> None:
        """Flush after a delay, unless a flush is scheduled."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._run)

    def cancel(self) -> None:
        """Flush no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        self._flush()
