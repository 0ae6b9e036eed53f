"""The calls that wait to be sent to one endpoint, and when the next ones are sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from trace_dagster.gateway.batches import is_heavy
from trace_dagster.gateway.jsonrpc import Answer

ANY_BATCH = 1 << 30


class QueuedCall:
    """One queued call. If its callers cancel ``answer``, the call is not sent any more."""

    __slots__ = (
        "answer",
        "first_sent",
        "is_numbered",
        "is_tip",
        "largest_batch",
        "method",
        "nulls",
        "params",
        "reason",
        "tries",
        "under_way",
        "waiters",
    )

    def __init__(
        self, method: str, params: bytes, answer: asyncio.Future[Answer], *, is_numbered: bool, is_tip: bool = False
    ) -> None:
        self.method = method
        self.params = params
        self.answer = answer
        self.is_tip = is_tip
        """True if it is about the newest blocks, and sent before the calls that are not."""
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

    The lane of calls about the tip comes before all others.
    """

    def __init__(self) -> None:
        self._tip: deque[QueuedCall] = deque()
        self._lanes: dict[str, deque[QueuedCall]] = {}

    def __len__(self) -> int:
        return len(self._tip) + sum(map(len, self._lanes.values()))

    def add(self, call: QueuedCall) -> None:
        """Add a call at the end of its lane."""
        self._lane(call).append(call)

    def add_first(self, call: QueuedCall) -> None:
        """Return a call that was sent to the front of its lane."""
        self._lane(call).appendleft(call)

    def next_lane(self, *, is_tip_only: bool = False) -> deque[QueuedCall] | None:
        """Return the tip's lane, else the one that waited longest since its last turn, unless ``is_tip_only``.

        Drops calls whose callers have left. Returns None if no call waits.
        """
        if _has_calls(self._tip):
            return self._tip
        for name, lane in [] if is_tip_only else list(self._lanes.items()):
            if _has_calls(lane):
                self._lanes[name] = self._lanes.pop(name)
                return lane
        return None

    def drain(self) -> Iterator[QueuedCall]:
        """Yield every call and empty the queue."""
        for lane in (self._tip, *self._lanes.values()):
            yield from lane
            lane.clear()

    def _lane(self, call: QueuedCall) -> deque[QueuedCall]:
        if call.is_tip:
            return self._tip
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
