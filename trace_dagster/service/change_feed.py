"""New changes of the lake for everyone who waits for some: one reader asks the log, however many listen.

The feed keeps the newest changes. A listener whose cursor is among them needs no query of its own; one that is further
behind reads pages of the log until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

from trace_dagster.errors import TooMany, TraceError, Unavailable
from trace_dagster.registry.changes import Change, ChangeLog

MOST_LISTENERS = 200
MOST_LISTENERS_OF_TOKEN = 50

PAGE = 1000
"""Changes that are read of the log at once."""

_KEPT = 10_000
"""Newest changes that the feed keeps."""

_POLL_SECONDS = 0.5
_READERS = 4
"""Threads that read the log, so that listeners that are far behind take few of the registry's connections."""

T = TypeVar("T")


class SharedFeed:
    """Reads the log while someone listens. It belongs to one event loop."""

    def __init__(self, log: ChangeLog) -> None:
        self._log = log
        self._readers = ThreadPoolExecutor(_READERS, "changes")
        self._listeners: Counter[UUID] = Counter()
        self._poller: asyncio.Task[None] | None = None
        self._recent = _Recent()
        self._moved = asyncio.Event()
        self._failure: TraceError | None = None
        self._is_closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return self._listeners.total()

    @asynccontextmanager
    async def listening(self, token_id: UUID, cursor: str) -> AsyncIterator[Listener]:
        """Yield a listener that stands at a cursor. Raises TooMany if there is no place for one more."""
        self._admit(token_id)
        self._listeners[token_id] += 1
        try:
            if self._poller is None or self._poller.done():
                self._failure = None
                self._recent = _Recent(self._recent.end + 1)  # what an earlier poller kept is old
                self._poller = asyncio.create_task(self._poll())
            yield Listener(self, cursor)
        finally:
            self._listeners[token_id] -= 1
            self._listeners += Counter()  # forgets tokens with no listener
            if not self._listeners and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    async def now(self) -> str:
        """Return the cursor of this moment."""
        return await self.run(self._log.now)

    async def run(self, work: Callable[[], T]) -> T:
        """Run something that blocks in one of the feed's threads. Raises Unavailable if the service ends."""
        if self._is_closed:
            raise _the_end()
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def close(self) -> None:
        """Let listeners end, and end the threads."""
        self._is_closed = True
        self._fail(_the_end())
        self._readers.shutdown(wait=False)

    def _admit(self, token_id: UUID) -> None:
        if self.listeners >= MOST_LISTENERS:
            raise TooMany("too many clients wait for changes at this service: try again later")
        if self._listeners[token_id] >= MOST_LISTENERS_OF_TOKEN:
            raise TooMany("too many clients wait for changes with this token: end some of them")

    async def _poll(self) -> None:
        try:
            self._recent.restart(await self.now())
            self._wake()
            while True:
                await asyncio.sleep(_POLL_SECONDS)
                if await self._read_new():
                    self._wake()
        except TraceError as error:
            self._fail(error)

    async def _read_new(self) -> bool:
        """Take over what is new in the log, all pages of it at once. Return whether there was something.

        A listener may have read ahead of the feed. It then finds its cursor among what is new.
        """
        found: list[Change] = []
        cursor = self._recent.tip
        while len(found) < _KEPT:
            page, cursor = await self.read_log(cursor, PAGE)
            found += page
            if len(page) < PAGE:
                self._recent.add(found)
                return bool(found)
        self._recent.restart(await self.now())
        return True

    async def read_log(self, cursor: str, limit: int) -> tuple[list[Change], str]:
        """Read a page of the log; raises what :meth:`ChangeLog.after` raises."""
        return await self.run(lambda: self._log.after(cursor, limit))

    def _fail(self, error: TraceError) -> None:
        self._failure = error
        self._recent = _Recent(self._recent.end + 1)
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _the_end() -> Unavailable:
    return Unavailable("the service ends: connect again")


class _Recent:
    """The newest changes, by their place in the order of the log. Places never repeat."""

    def __init__(self, first: int = 0) -> None:
        self.tip = ""
        self._first = first
        self._changes: list[Change] = []
        self._places: dict[str, int] = {}

    @property
    def end(self) -> int:
        """The place of the next change."""
        return self._first + len(self._changes)

    def restart(self, cursor: str) -> None:
        """Forget all changes, and go on after a cursor. Earlier places are not known any more."""
        self._first, self._changes = self.end + 1, []
        self._places = {cursor: self._first}
        self.tip = cursor

    def add(self, changes: list[Change]) -> None:
        """Append the changes after ``tip``."""
        for change in changes:
            self._changes.append(change)
            self._places[change.cursor] = self.end
            self.tip = change.cursor
        if len(self._changes) > 2 * _KEPT:
            dropped, self._changes = self._changes[:-_KEPT], self._changes[-_KEPT:]
            self._first += len(dropped)
            self._places = {cursor: place for cursor, place in self._places.items() if place >= self._first}

    def place_after(self, cursor: str) -> int | None:
        """Return the place of the first change after a cursor; None if that is not known here."""
        return self._places.get(cursor)

    def read(self, place: int, limit: int) -> list[Change]:
        """Return changes from a place on."""
        return self._changes[place - self._first :][:limit]


class Listener:
    """One who reads changes in order, from a cursor on."""

    def __init__(self, feed: SharedFeed, cursor: str) -> None:
        self._feed = feed
        self.cursor = cursor
        self._seen: asyncio.Event | None = None

    async def read(self, limit: int = PAGE) -> list[Change]:
        """Return changes after the cursor, and move it; none if the feed has no new one.

        Raises what :meth:`ChangeLog.after` raises, and what made the feed end.
        """
        feed = self._feed
        if feed._failure is not None:
            raise feed._failure
        self._seen = feed._moved
        place = feed._recent.place_after(self.cursor)
        if place is None:
            return await self.read_log(limit)
        page = feed._recent.read(place, limit)
        self.cursor = page[-1].cursor if page else self.cursor
        return page

    async def read_log(self, limit: int = PAGE) -> list[Change]:
        """Return changes after the cursor as the log has them at this moment, and move the cursor."""
        page, self.cursor = await self._feed.read_log(self.cursor, limit)
        return page

    async def wait(self, seconds: float) -> bool:
        """Wait until there may be something new since the last read. Return False if the time was over before."""
        assert self._seen is not None
        try:
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 may swallow that the client left
                await self._seen.wait()
        except TimeoutError:
            return False
        return True
