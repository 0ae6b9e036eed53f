"""Heads from one pool at a time: from the next pool if one does not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trace_dagster.errors import Unavailable
from trace_dagster.follow.heads import Head, HeadSource, head_source
from trace_dagster.rpc.pools import RpcPool


class PoolHeads:
    """The heads that the pools of a chain's streams show. One thread at a time uses it."""

    def __init__(self, block_seconds: Callable[[], float | None]) -> None:
        self._block_seconds = block_seconds
        self._pools: tuple[RpcPool, ...] = ()
        self._place = 0
        self._source: HeadSource | None = None

    def use(self, pools: Sequence[RpcPool]) -> None:
        """Use these pools from now on."""
        if tuple(pools) != self._pools:
            self.close()
            self._pools, self._place = tuple(pools), 0

    def next(self, timeout_seconds: float) -> Head | None:
        """Return a head that was not returned before, or None if none came in that time.

        Raises Unavailable if the pool does not answer; the next call asks the next pool.
        """
        if self._source is None:
            self._source = head_source(self._pools[self._place], self._block_seconds)
        try:
            return self._source.next(timeout_seconds)
        except Unavailable:
            if len(self._pools) > 1:
                self.close()
                self._place = (self._place + 1) % len(self._pools)
            raise

    def pass_over(self) -> None:
        """Ask another endpoint from now on, because no endpoint has the head that was returned last."""
        if self._source is not None:
            self._source.pass_over()

    def close(self) -> None:
        """End the subscription."""
        if self._source is not None:
            self._source.close()
            self._source = None
