"""New heads of a chain: pushed through the gateway where it subscribes to them, else polled.

A head is a hint that there may be a new block. Nothing is believed because of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from trace_dagster.errors import TraceError, Unavailable
from trace_dagster.gateway.heads_client import HeadStream, NoHeads
from trace_dagster.rpc.heads import Head, latest_head
from trace_dagster.rpc.pools import Endpoint, Limits, RpcPool

__all__ = ["Head", "HeadSource", "PollTimes", "PolledHeads", "SubscribedHeads", "head_source"]

LEAST_POLL_SECONDS = 0.1
MOST_POLL_SECONDS = 5.0
POLLS_OF_LIMIT = 0.25
"""Largest part of an endpoint's rate limit that polls take."""

RETRY_SECONDS = 0.5
"""Seconds after a failed poll, or a failed connection to the gateway's stream."""

NO_HEADS_SECONDS = 60.0
"""Seconds after which a gateway that has no subscriptions for the pool is asked again for them."""

STUCK_SECONDS, STUCK_BLOCKS = 10.0, 5
"""Time without a new head, in seconds and in block times, after which the next endpoint is polled, or polls help a
subscription."""

LEAST_SILENT_SECONDS = 1.0

NO_LIMITS = Limits()

BlockSeconds = Callable[[], float | None]
"""Returns the usual seconds between blocks, or None if they are not known."""

Clock = Callable[[], float]


class HeadSource(Protocol):
    """Where new heads come from. Belongs to one thread, except ``close``."""

    def next(self, timeout_seconds: float) -> Head | None:
        """Return a head that was not returned before, or None if none came in this time. Raises Unavailable."""

    def pass_over(self) -> None:
        """Poll another endpoint from now on."""

    def close(self) -> None:
        """Stop: a thread that waits in ``next`` returns soon."""


def head_source(pool: RpcPool, block_seconds: BlockSeconds) -> HeadSource:
    """Return the heads of a pool: those that its gateway streams, if it has one, else polled ones."""
    endpoints = [endpoint.tip() for endpoint in pool.endpoints]
    polled = PolledHeads(endpoints, block_seconds, limits=pool.limits)
    url = next((endpoint.heads_url for endpoint in endpoints if endpoint.heads_url), "")
    return SubscribedHeads(url, polled, block_seconds) if url else polled


class PolledHeads:
    """Heads that endpoints are asked for; one endpoint at a time, the next if it fails or is stuck."""

    def __init__(
        self, endpoints: Sequence[Endpoint], block_seconds: BlockSeconds, *, limits: Limits = NO_LIMITS
    ) -> None:
        self._endpoints = endpoints
        rate = limits.requests_per_second
        least = 0.0 if rate is None else 1 / (POLLS_OF_LIMIT * rate)
        self.times = PollTimes(block_seconds, max(LEAST_POLL_SECONDS, least))
        self._current = 0
        self._last: Head | None = None
        self._closed = threading.Event()

    def next(self, timeout_seconds: float) -> Head | None:
        """Return a head that differs from the last one; see :class:`HeadSource`."""
        ends = time.monotonic() + timeout_seconds
        while not self._closed.is_set():
            wait = self.times.seconds_left
            left = ends - time.monotonic()
            if wait > left:
                self._closed.wait(max(left, 0.0))
                return None
            if not self._closed.wait(wait) and (head := self._polled()) is not None:
                return head
        return None

    def pass_over(self) -> None:
        """Poll the next endpoint, if there is one, and forget what this one showed."""
        if len(self._endpoints) > 1:
            self._current += 1
            self._last = None
            self.times.restart()

    def close(self) -> None:
        """Stop polling."""
        self._closed.set()

    def _polled(self) -> Head | None:
        """Ask for the head; return it if it is another one."""
        if self.times.is_stuck and len(self._endpoints) > 1:
            self._current += 1
            self.times.unstuck()
        head = self._asked()
        self.times.polled(head.number)
        is_new = self._last is None or (head.number, head.hash) != (self._last.number, self._last.hash)
        self._last = head
        return head if is_new else None

    def _asked(self) -> Head:
        """Return the head of the first endpoint that answers. Raises the last one's error as Unavailable."""
        last: TraceError | None = None
        for _ in self._endpoints:
            try:
                return latest_head(self._endpoints[self._current % len(self._endpoints)])
            except TraceError as error:
                last = error
                self._current += 1
        self.times.failed()
        raise Unavailable(last.message if last else "the rpc pool has no endpoint", **(last.facts if last else {}))


class PollTimes:
    """When to poll next: four times in a block's time, and more often around the time when a block is expected."""

    def __init__(self, block_seconds: BlockSeconds, least_seconds: float, clock: Clock = time.monotonic) -> None:
        self._given = block_seconds
        self._least = least_seconds
        self._clock = clock
        self._learnt: float | None = None
        self._number = -1
        self._new_at = clock()
        """When the last new head was seen."""
        self._unstuck_at = clock()
        self._due = clock()

    @property
    def seconds_left(self) -> float:
        """Seconds until the next poll; 0 if it is due."""
        return max(0.0, self._due - self._clock())

    @property
    def is_stuck(self) -> bool:
        """True if no new head was seen for a long time."""
        longest = max(STUCK_SECONDS, STUCK_BLOCKS * (self._block_seconds or 0.0))
        return self._clock() - max(self._new_at, self._unstuck_at) > longest

    def unstuck(self) -> None:
        """Record that another endpoint is tried."""
        self._unstuck_at = self._clock()

    def restart(self) -> None:
        """Forget the number that was polled last: it is not of the chain."""
        self._number, self._learnt = -1, None
        self._new_at = self._unstuck_at = self._due = self._clock()

    def failed(self) -> None:
        """Record that no endpoint answered."""
        self._due = self._clock() + max(RETRY_SECONDS, self._least)

    def polled(self, number: int) -> None:
        """Record a poll that gave this number."""
        now = self._clock()
        if number > self._number:
            if self._number >= 0:
                took = (now - self._new_at) / (number - self._number)
                self._learnt = took if self._learnt is None else 0.8 * self._learnt + 0.2 * took
            self._number = number
            self._new_at = now
        self._due = self._next(now)

    @property
    def _block_seconds(self) -> float | None:
        return self._given() or self._learnt

    def _next(self, now: float) -> float:
        block = self._block_seconds
        if block is None:
            return now + max(self._least, RETRY_SECONDS)
        relaxed = min(max(block / 4, self._least), MOST_POLL_SECONDS)
        eager = min(max(block / 20, self._least), 1.0)
        starts, ends = self._new_at + block - eager, self._new_at + 2 * block
        if now >= ends:
            return now + relaxed
        return now + eager if now >= starts - eager else min(now + relaxed, starts)


class SubscribedHeads:
    """Heads that a gateway streams; polled ones while the stream is broken or without subscriptions."""

    def __init__(self, url: str, polled: PolledHeads, block_seconds: BlockSeconds) -> None:
        self._url = url
        self._polled = polled
        self._block_seconds = block_seconds
        self._stream: HeadStream | None = None
        self._retry_at = 0.0
        self._heard_at = time.monotonic()
        self._last: tuple[int, bytes] | None = None
        self._closed = threading.Event()

    def next(self, timeout_seconds: float) -> Head | None:
        """Return a head that differs from the last one; see :class:`HeadSource`."""
        ends = time.monotonic() + timeout_seconds
        while not self._closed.is_set():
            left = ends - time.monotonic()
            head = self._next(max(0.0, min(left, RETRY_SECONDS)))
            if head is not None and (head.number, head.hash) != self._last:
                self._last = (head.number, head.hash)
                return head
            if left <= 0:
                break
        return None

    def pass_over(self) -> None:
        """Poll the next endpoint. The stream is of all endpoints."""
        self._polled.pass_over()

    def close(self) -> None:
        """Stop polling and reading."""
        self._closed.set()
        self._polled.close()

    def _next(self, seconds: float) -> Head | None:
        """Return a head within this time: from the stream, if it has one, or if it can be expected to have one."""
        stream = self._opened()
        if (head := self._streamed(0.0)) is not None:
            return head
        if stream is not None and stream.subscriptions and not self._is_silent:
            return self._streamed(seconds)
        most = LEAST_POLL_SECONDS if stream is not None else seconds
        return self._polled.next(min(seconds, most, self._polled.times.seconds_left + 0.01))

    @property
    def _is_silent(self) -> bool:
        usual = self._block_seconds()
        longest = STUCK_SECONDS if usual is None else max(LEAST_SILENT_SECONDS, STUCK_BLOCKS * usual)
        return time.monotonic() - self._heard_at > longest

    def _streamed(self, seconds: float) -> Head | None:
        if self._stream is None:
            return None
        try:
            head = self._stream.head(seconds)
        except Unavailable:
            self._drop(RETRY_SECONDS)
            return None
        if head is not None:
            self._heard_at = time.monotonic()
        return head

    def _opened(self) -> HeadStream | None:
        if self._stream is None and time.monotonic() >= self._retry_at:
            try:
                self._stream = HeadStream(self._url)
                self._heard_at = time.monotonic()
            except NoHeads:
                self._drop(NO_HEADS_SECONDS)
            except Unavailable:
                self._drop(RETRY_SECONDS)
        return self._stream

    def _drop(self, seconds: float) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._retry_at = time.monotonic() + seconds
