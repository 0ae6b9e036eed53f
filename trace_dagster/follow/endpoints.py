"""The endpoints that a follower asks: those of all pools of its streams, the best first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from trace_dagster.errors import NoAnswer, TraceError
from trace_dagster.rpc.pools import Endpoint, RpcPool

CHAIN_CHECK_SECONDS = 60.0
"""How long an endpoint's chain id counts as known."""

SILENT_SECONDS = 30.0
BEHIND_SECONDS = 2.0
"""How long an endpoint is asked last after it did not answer, or after it failed for another reason."""

BestFirst = Callable[[RpcPool], list[Endpoint]]
"""Returns a pool's endpoints, those that lied lately at the end."""


class TipEndpoints:
    """Orders endpoints. One thread at a time changes the pools; others may read."""

    def __init__(self, best_first: BestFirst) -> None:
        self._best_first = best_first
        self._pools: tuple[RpcPool, ...] = ()
        self._checked: dict[str, float] = {}
        self._avoided_until: dict[str, float] = {}

    def use(self, pools: Sequence[RpcPool]) -> None:
        """Use the endpoints of these pools from now on."""
        self._pools = tuple(pools)

    @property
    def quorum(self) -> int:
        """How many endpoints must give the same rows."""
        return max((pool.quorum for pool in self._pools), default=1)

    def ordered(self) -> list[Endpoint]:
        """Return every endpoint a single time: first those that answered when they were last asked."""
        found = {each.url: each.tip() for pool in self._pools for each in self._best_first(pool)}
        now = time.monotonic()
        return sorted(found.values(), key=lambda each: self._avoided_until.get(each.fingerprint, 0.0) > now)

    def passed_over(self, endpoint: Endpoint, error: TraceError) -> None:
        """Ask an endpoint last for a while, because it failed."""
        seconds = SILENT_SECONDS if isinstance(error, NoAnswer) else BEHIND_SECONDS
        self._avoided_until[endpoint.fingerprint] = time.monotonic() + seconds

    def must_check_chain(self, endpoint: Endpoint) -> bool:
        """Return whether the endpoint's chain id was not compared in the last minute."""
        return time.monotonic() - self._checked.get(endpoint.fingerprint, float("-inf")) > CHAIN_CHECK_SECONDS

    def note_checked(self, endpoint: Endpoint) -> None:
        """Note that the endpoint's chain id has just been compared."""
        self._checked[endpoint.fingerprint] = time.monotonic()
