"""Places of queries that run, and the queue before them, which is fair between tokens.

Used by the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from trace_dagster.errors import TooMany
from trace_dagster.registry.tokens import Caller
from trace_dagster.service.per_minute import PerMinute

WAIT_SECONDS = 30.0
"""A query that got no place after so long is refused."""
_MOST_RETRY_SECONDS = 30
_WEIGHT = 0.2
"""How much one more query counts in the mean of their durations."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One query in the queue."""

    token: UUID
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def has_place(self) -> bool:
        """Return whether it got a place. One may come at the moment at which the wait ends otherwise."""
        return self.turn.done() and not self.turn.cancelled() and self.turn.exception() is None

    def end(self, error: Exception) -> None:
        """Let the query fail instead of getting a place."""
        if not self.turn.done():
            self.turn.set_exception(error)
            self.turn.exception()  # nobody may wait for it any more: then it is no error


class Places:
    """Gives ``running`` queries a place at a time. ``waiting`` others wait, one token's turn after another's.

    When the queue is full, a token with fewer waiting queries takes the place of the last one of the token with the
    most, so that no token can fill the queue.
    """

    def __init__(self, running: int, waiting: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._places = running
        self._most_waiting = waiting
        self._wait_seconds = wait_seconds
        self._queues: OrderedDict[UUID, deque[Waiter]] = OrderedDict()
        self._begun: dict[UUID, PerMinute] = {}
        self._held: Counter[UUID] = Counter()
        self.running = 0
        """Queries that have a place."""
        self._mean_seconds = 1.0

    @property
    def waiting(self) -> int:
        """Queries in the queue."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def place(self, caller: Caller, waiter: Waiter) -> AsyncIterator[None]:
        """Wait for a place, and hold it during the block. ``waiter.end`` ends the wait.

        Raises TooMany if the token has no query left, the queue is full, or no place came free in time.
        """
        self._admit(caller)
        self._held[caller.token_id] += 1
        try:
            await self._wait(waiter)
            began = time.monotonic()
            try:
                yield
            finally:
                self._mean_seconds += _WEIGHT * (time.monotonic() - began - self._mean_seconds)
                self._free()
        finally:
            self._held[caller.token_id] -= 1
            if not self._held[caller.token_id]:
                del self._held[caller.token_id]

    def position(self, waiter: Waiter) -> int | None:
        """Return how many turns it takes until a query gets a place, from 1 on; None if it does not wait."""
        own = self._queues.get(waiter.token, deque())
        if waiter not in own:
            return None
        index, is_before, before = own.index(waiter), True, 0
        for token, queue in self._queues.items():
            if token == waiter.token:
                is_before = False
            else:
                before += min(len(queue), index + is_before)
        return before + index + 1

    def _admit(self, caller: Caller) -> None:
        token = caller.token_id
        if caller.max_queries is not None and self._held[token] >= caller.max_queries:
            raise self._too_many(
                f"{self._held[token]} queries of this token run or wait, which is its limit: wait until one ends"
            )
        if caller.queries_per_minute is not None:
            self._count_minute(token, caller.queries_per_minute)

    def _count_minute(self, token: UUID, most: int) -> None:
        for known in [known for known, begun in self._begun.items() if not begun.number()]:
            del self._begun[known]
        begun = self._begun.setdefault(token, PerMinute(most))
        if not begun.count():
            raise TooMany(
                f"{most} queries of this token began in the last minute, which is its limit: wait",
                retry_after_seconds=max(1, begun.seconds_until_free()),
            )

    async def _wait(self, waiter: Waiter) -> None:
        if self.running < self._places and not self._queues:
            self.running += 1
            return
        self._enqueue(waiter)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiter.turn
        except TimeoutError:
            if waiter.has_place():
                return
            raise self._too_many(
                f"the query waited {self._wait_seconds:.0f} s and could not begin: try again later"
            ) from None
        except asyncio.CancelledError:
            if waiter.has_place():
                self._free()
            raise
        finally:
            self._forget(waiter)

    def _enqueue(self, waiter: Waiter) -> None:
        if self.waiting >= self._most_waiting:
            self._make_room(waiter.token)
        self._queues.setdefault(waiter.token, deque()).append(waiter)

    def _make_room(self, token: UUID) -> None:
        """End the last waiting query of the token with the most, if another one's shall wait instead of it."""
        longest = max(self._queues.values(), key=len, default=None)
        if longest is None or len(longest) <= len(self._queues.get(token, ())) + 1:
            raise self._full()
        longest.pop().end(self._full())

    def _free(self) -> None:
        """Give the place to the next query: each token has its turn."""
        self.running -= 1
        while self._queues and self.running < self._places:
            token, queue = self._queues.popitem(last=False)
            waiter = queue.popleft()
            if queue:
                self._queues[token] = queue
            if not waiter.turn.done():
                waiter.turn.set_result(None)
                self.running += 1

    def _forget(self, waiter: Waiter) -> None:
        queue = self._queues.get(waiter.token)
        if queue and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[waiter.token]

    def _full(self) -> TooMany:
        return self._too_many(f"the queue is full ({self._places} queries run, {self.waiting} wait): try again later")

    def _too_many(self, message: str) -> TooMany:
        seconds = self._mean_seconds * (self.waiting + 1) / self._places
        return TooMany(message, retry_after_seconds=max(1, min(math.ceil(seconds), _MOST_RETRY_SECONDS)))
