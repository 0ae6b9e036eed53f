"""Observes which blocks the chain's nodes call safe and finalized, beside the work on new blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from trace_dagster.datasets.chain import Chain
from trace_dagster.errors import TraceError
from trace_dagster.rpc.finality import chain_head, safe_block
from trace_dagster.rpc.pools import RpcPool

LEAST_SECONDS = 1.0
"""Time between two observations, at least."""


@dataclass(frozen=True, slots=True)
class FinalBlocks:
    """The blocks that count as safe and as finalized. ``safe`` is None if the chain's nodes do not know that tag."""

    safe: int | None
    finalized: int


def final_blocks(rules: Sequence[tuple[RpcPool, int | None]], chain: Chain, latest: int) -> FinalBlocks:
    """Return the final blocks by the strictest of the jobs' rules: pool, and the job's ``finality_blocks``.

    Raises the error of a pool that does not answer.
    """
    finalized = min(chain_head(pool, chain, blocks, latest).finalized for pool, blocks in rules)
    safe = None
    with suppress(TraceError):  # nothing depends on it
        safe = safe_block(rules[0][0], chain)
    return FinalBlocks(None if safe is None else min(safe, latest), finalized)


def at_the_tip(pool: RpcPool) -> RpcPool:
    """Return a pool whose calls a gateway sends before all others."""
    return replace(pool, gateway_urls=tuple(each.tip().gateway_url for each in pool.endpoints))


class FinalityWatch:
    """Asks in a thread of its own, at most once a second. One thread at a time uses it."""

    def __init__(self, read: Callable[[int], FinalBlocks]) -> None:
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finality")
        self._asked: Future[FinalBlocks] | None = None
        self._due_at = float("-inf")
        self.failure: TraceError | None = None
        """Why the last observation failed; None if it did not."""

    def observe(self, latest: int, seconds: float) -> FinalBlocks | None:
        """Start an observation if ``seconds`` have passed since the last. Return a result that is new, or None."""
        found = self._result()
        if self._asked is None and time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + max(LEAST_SECONDS, seconds)
            self._asked = self._thread.submit(self._read, latest)
        return found

    def restart(self) -> None:
        """Forget what is being asked, and ask again at once."""
        self._asked, self._due_at = None, float("-inf")

    def close(self) -> None:
        """End the thread after the call that it waits for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _result(self) -> FinalBlocks | None:
        if self._asked is None or not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        try:
            self.failure = None
            return asked.result()
        except TraceError as error:
            self.failure = error
            return None
