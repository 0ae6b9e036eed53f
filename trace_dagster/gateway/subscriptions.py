"""Heads that endpoints push: one subscription per WebSocket URL, shared by all callers, held while there are some.

A subscription is not trusted to tell everything: after each connect, if no head came for some block times, and from
time to time, the endpoint is asked for its newest block by a call.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress

import msgspec

from trace_dagster.gateway.endpoint_client import EndpointClient
from trace_dagster.gateway.rate_limiter import Clock
from trace_dagster.gateway.tip import TipCalls
from trace_dagster.gateway.websocket import HeadSocket, SubscriptionLost, head_socket
from trace_dagster.messages.logs import component_log
from trace_dagster.rpc.heads import LATEST, Head, UnreadHeads, head_json, head_of
from trace_dagster.rpc.pools import variable_of

BEAT_SECONDS = 5.0
"""Seconds after which a caller gets an empty line if nothing happened."""

LINGER_SECONDS = 30.0
"""Seconds for which a subscription is held after its last caller."""

SILENT_BLOCKS = 4
"""Usual block times without a head after which the endpoint is asked by a call."""

CHECK_SECONDS = 10.0
"""Seconds after which it is asked by a call although heads come: they may be old."""

_LEAST_SILENCE, _FIRST_SILENCE, _MOST_SILENCE = 0.5, 2.0, 30.0
_MOST_GAP, _WEIGHT, _MOST_CALLS = 100, 0.2, 16
_MOST_MISSED = 2
"""Calls in a row that show a newer block than the subscription, after which the gateway subscribes anew."""

_LEAST_BACKOFF, _MOST_BACKOFF = 0.2, 30.0
_log = component_log("gateway")


class HeadListener:
    """The heads for one caller that it has not read, as far as they count."""

    def __init__(self) -> None:
        self._heads = UnreadHeads()
        self._live: set[int] = set()
        self._is_changed = asyncio.Event()
        self._is_changed.set()

    def head(self, head: Head) -> None:
        """Take a head; its position says of which endpoint."""
        self._heads.add(head)
        self._is_changed.set()

    def live(self, position: int, *, is_live: bool) -> None:
        """Record whether the subscription to an endpoint stands."""
        (self._live.add if is_live else self._live.discard)(position)
        self._is_changed.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield lines of JSON: first the number of live subscriptions, then that and heads as they change."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._is_changed.wait()
            if not self._is_changed.is_set():
                yield b"\n"
                continue
            self._is_changed.clear()
            told = [{"subscriptions": len(self._live)}, *map(head_json, reversed(self._heads.take()))]
            yield b"".join(msgspec.json.encode(each) + b"\n" for each in told)


async def head_lines(endpoints: Mapping[int, Subscription]) -> AsyncGenerator[bytes]:
    """Yield the lines of :meth:`HeadListener.lines` for the endpoints at these positions of a pool."""
    listener = HeadListener()
    for position, subscription in endpoints.items():
        subscription.add(listener, position)
    try:
        async for lines in listener.lines():
            yield lines
    finally:
        for subscription in endpoints.values():
            subscription.remove(listener)


class Subscription:
    """The subscription to one endpoint's heads."""

    def __init__(self, client: EndpointClient, calls: TipCalls, url: str, clock: Clock) -> None:
        self._client = client
        self._calls = calls
        self._url = url
        self._silence = Silence(clock)
        self._listeners: dict[HeadListener, int] = {}
        """The callers, and the endpoint's position in the pool of each."""
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._newest: Head | None = None
        self._backoff = _LEAST_BACKOFF
        self._missed = 0
        """Calls that showed a newer block than what was pushed since."""
        self._called = -1
        """The block that the last of them showed."""
        self._is_lost = False
        """True if the loss was logged, and no head came since."""

    def add(self, listener: HeadListener, position: int) -> None:
        """Send heads to a caller, as those of the endpoint at ``position`` of its pool; first the newest known."""
        self._listeners[listener] = position
        listener.live(position, is_live=bool(self._client.is_subscribed))
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        if self._newest is not None:
            listener.head(_at(self._newest, position))

    def remove(self, listener: HeadListener) -> None:
        """Send a caller nothing more. End the subscription some time after the last caller."""
        del self._listeners[listener]
        if not self._listeners:
            self._ending = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end)

    async def close(self) -> None:
        """End the subscription."""
        task = self._task
        self._end()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._client.is_subscribed = None
            self._newest = None

    async def _run(self) -> None:
        self._client.is_subscribed = False
        while True:
            try:
                async with head_socket(self._url) as socket:
                    await self._follow(socket)
            except SubscriptionLost as lost:
                self._note_lost(str(lost))
            await asyncio.sleep(self._backoff * random.uniform(0.5, 1.0))  # noqa: S311
            self._backoff = min(self._backoff * 2, _MOST_BACKOFF)

    async def _follow(self, socket: HeadSocket) -> None:
        """Publish heads until the subscription is lost. Raises SubscriptionLost."""
        await self._require_chain(await socket.subscribe())
        self._set_live(is_live=True)
        self._missed = 0
        reading, checking = asyncio.ensure_future(socket.head()), asyncio.ensure_future(self._check())
        try:
            while self._missed < _MOST_MISSED:
                is_checking = not checking.done()
                await asyncio.wait(
                    [reading, checking] if is_checking else [reading],
                    timeout=None if is_checking else self._silence.seconds_left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reading.done():
                    self._note_head(reading.result())
                    reading = asyncio.ensure_future(socket.head())
                if checking.done() and not self._silence.seconds_left:
                    checking = asyncio.ensure_future(self._check())
        finally:
            reading.cancel()
            checking.cancel()
        raise SubscriptionLost("it pushes no new heads, although the chain grows")

    async def _require_chain(self, pushed: str) -> None:
        answer = await self._calls.answer("eth_chainId", msgspec.Raw(b"[]"))
        if answer.result is not None and msgspec.json.decode(answer.result) != pushed:
            pool, _, _ = self._client.name.partition("#")
            raise SubscriptionLost(f"it serves another chain than the endpoint: correct {variable_of(pool, 'WS_URL')}")

    async def _check(self) -> None:
        """Ask for the newest block by a call. Count it as missed if it is newer than what was pushed."""
        method, params = LATEST
        answer = await self._calls.answer(method, msgspec.Raw(msgspec.json.encode(params)))
        head = None if answer.result is None else head_of(msgspec.json.decode(answer.result))
        is_newer = head is not None and (self._newest is None or head.number > self._newest.number)
        self._silence.called(is_newer=is_newer)
        if head is not None and is_newer:
            self._called = head.number
            self._missed += 1
            self._publish(head)

    def _note_head(self, head: Head) -> None:
        self._client.counters.heads += 1
        self._silence.pushed(head.number)
        self._backoff = _LEAST_BACKOFF
        if head.number >= self._called:
            self._missed = 0
        if self._is_lost:
            self._is_lost = False
            _log.event("subscribed", endpoint=self._client.name)
        self._publish(head)

    def _publish(self, head: Head) -> None:
        self._newest = head
        for listener, position in self._listeners.items():
            listener.head(_at(head, position))

    def _note_lost(self, reason: str) -> None:
        self._client.counters.subscriptions_lost += 1
        self._set_live(is_live=False)
        if not self._is_lost:
            self._is_lost = True
            _log.warning("subscription_lost", endpoint=self._client.name, reason=reason)

    def _set_live(self, *, is_live: bool) -> None:
        self._client.is_subscribed = is_live
        for listener, position in self._listeners.items():
            listener.live(position, is_live=is_live)


class Silence:
    """When to ask by a call: after some block times without a head, later each time, and every CHECK_SECONDS."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._block_seconds: float | None = None
        """Usual seconds between blocks."""
        self._highest = -1
        self._pushed_at = self._called_at = clock()
        self._calls = 0
        """Calls that showed nothing new since the last head."""

    @property
    def seconds_left(self) -> float:
        """Seconds until the next call; 0 if it is due."""
        silence = _FIRST_SILENCE if self._block_seconds is None else SILENT_BLOCKS * self._block_seconds
        silence = min(max(silence, _LEAST_SILENCE) * (1 << self._calls), _MOST_SILENCE)
        due = max(self._pushed_at, self._called_at) + silence
        if not self._calls:
            due = min(due, self._called_at + CHECK_SECONDS)
        return max(0.0, due - self._clock())

    def pushed(self, number: int) -> None:
        """Record a head."""
        now = self._clock()
        if 0 <= self._highest < number < self._highest + _MOST_GAP:
            took = (now - self._pushed_at) / (number - self._highest)
            known = took if self._block_seconds is None else self._block_seconds
            self._block_seconds = known + (took - known) * _WEIGHT
        self._highest = max(self._highest, number)
        self._pushed_at = now
        self._calls = 0

    def called(self, *, is_newer: bool) -> None:
        """Record a call, and whether it showed a newer block."""
        self._called_at = self._clock()
        self._calls = 0 if is_newer else min(self._calls + 1, _MOST_CALLS)


def _at(head: Head, position: int) -> Head:
    return Head(head.number, head.hash, head.parent_hash, position)
