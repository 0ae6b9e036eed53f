"""Fetches blocks below the head in a thread of its own, so that new heads do not wait for answers about old blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from trace_dagster.errors import NoAnswer, TraceError
from trace_dagster.follow.block_source import Fetched
from trace_dagster.follow.fill import Fill

MOST_BLOCKS = 50
"""Blocks that are fetched together: as many as fit into one HTTP request of a usual endpoint with their receipts."""

STORE_SECONDS = 0.08
"""How long a new head may wait for blocks that are being stored."""

FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 0.05, 2.0
"""How long nothing is fetched after a fetch has failed; twice as long after the next failure."""


class Filler:
    """One fetch at a time. One thread at a time uses it."""

    def __init__(self, fetch: Callable[[Fill], Fetched]) -> None:
        self._fetch = fetch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fill")
        self._fill: Fill | None = None
        self._asked: Future[Fetched] | None = None
        self._seconds_per_block = STORE_SECONDS
        self._most = MOST_BLOCKS
        self._failures = 0
        self._rests_until = float("-inf")

    @property
    def is_busy(self) -> bool:
        """True if blocks are being fetched, or were fetched and not yet taken."""
        return self._asked is not None

    @property
    def is_done(self) -> bool:
        """True if fetched blocks can be taken."""
        return self._asked is not None and self._asked.done()

    @property
    def most_blocks(self) -> int:
        """How many blocks to fetch next: as many as are stored in STORE_SECONDS, and fewer after a failure."""
        return max(1, min(self._most, int(STORE_SECONDS / self._seconds_per_block)))

    @property
    def can_start(self) -> bool:
        """True if nothing is being fetched, and the last fetch did not fail just now."""
        return self._asked is None and time.monotonic() >= self._rests_until

    def start(self, fill: Fill) -> None:
        """Start to fetch."""
        self._fill, self._asked = fill, self._thread.submit(self._fetch, fill)

    def take(self) -> tuple[Fill, Fetched | TraceError]:
        """Return the fetched blocks, or the error of the fetch. Raises NoAnswer if no endpoint answered."""
        fill, asked = self._fill, self._asked
        self.drop()
        assert fill is not None
        assert asked is not None
        try:
            found = asked.result()
        except NoAnswer:
            raise
        except TraceError as error:
            self._note_failed(len(fill.block_range))
            return fill, error
        self._failures, self._most = 0, min(2 * self._most, MOST_BLOCKS)
        return fill, found

    def drop(self) -> None:
        """Forget the blocks that are being fetched: the chain has changed, or they are no longer wanted."""
        if self._asked is not None:
            self._asked.cancel()  # it may wait for an earlier one that takes long
        self._fill, self._asked = None, None

    def note_stored(self, blocks: int, seconds: float) -> None:
        """Note how long it took to store blocks."""
        self._seconds_per_block = (self._seconds_per_block + seconds / blocks) / 2

    def close(self) -> None:
        """End the thread after the call that it waits for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _note_failed(self, blocks: int) -> None:
        """Fetch fewer blocks next, after a rest: one of them may be the reason."""
        rest = min(FIRST_REST_SECONDS * 2 ** min(self._failures, 10), LONGEST_REST_SECONDS)
        self._failures += 1
        self._most = max(1, blocks // 2)
        self._rests_until = time.monotonic() + rest
