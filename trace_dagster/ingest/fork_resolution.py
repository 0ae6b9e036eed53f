"""Resolves a fork: two ranges show different hashes where they meet, and the pools' nodes decide which one is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from trace_dagster.datasets.chain import Chain
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import ForkConflict, InvalidInput, NotYet, TraceError, Unavailable, VerificationFailed
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.hot_commit import NotOnHotChain
from trace_dagster.rpc.client import call_all
from trace_dagster.rpc.pools import Endpoint, RpcPool
from trace_dagster.verify.commitments import prove, rpc_json

LiarRecorder = Callable[[Endpoint, str], None]
"""Records that an endpoint gave rows which the chain contradicts, with the reason."""


class ForkResolver:
    """Asks every endpoint of both sides which block is the chain's, and acts on the answers."""

    def __init__(self, forks: Forks, pool_named: Callable[[str], RpcPool], record_liar: LiarRecorder) -> None:
        self._forks = forks
        self._pool_named = pool_named
        self._record_liar = record_liar

    def resolve(self, conflict: ForkConflict, chain_id: int, pool: RpcPool, used: Iterable[str]) -> TraceError:
        """Act on a conflict; return the error that ends the attempt. ``used`` are the endpoints of the new rows.

        - All endpoints show the new block: the committed versions were reorganised away. They are invalidated, and
          fetched again.
        - All show the committed block: the endpoints in ``used`` lied, which is recorded.
        - They disagree: both sides are fetched again.
        - One does not answer: nothing is done, because it may be the one with the chain's block.

        The error is NotYet if the other side is the follower's, who has not looked at it yet.
        """
        outcome = self._outcome(conflict, chain_id, pool, used)
        if isinstance(conflict, NotOnHotChain) and conflict.is_unanswered and isinstance(outcome, Unavailable):
            return NotYet(outcome.message, **outcome.facts)
        return outcome

    def _outcome(self, conflict: ForkConflict, chain_id: int, pool: RpcPool, used: Iterable[str]) -> TraceError:
        pools = self._pools(conflict, pool)
        shown = _shown(conflict.block, chain_of(chain_id), pools)
        if None in shown:
            return Unavailable(
                f"{conflict.message}, and not every endpoint answers which block is the chain's: tried again"
            )
        if shown == {conflict.found}:
            return self._reorganised(conflict)
        if shown == {conflict.committed}:
            return self._lied(conflict, pools, set(used))
        self._forks.requeue(conflict.versions, f"another range shows another hash for block {conflict.block}")
        return Unavailable(f"{conflict.message}, and the pool's endpoints do not agree: both are fetched again")

    def _pools(self, conflict: ForkConflict, pool: RpcPool) -> list[RpcPool]:
        """Return this range's pool and those of the committed versions; a pool without a URL cannot be asked."""
        pools = {pool.name: pool}
        for name in self._forks.pools_of(conflict.versions):
            with suppress(InvalidInput):
                pools.setdefault(name, self._pool_named(name))
        return list(pools.values())

    def _reorganised(self, conflict: ForkConflict) -> TraceError:
        if not conflict.versions:  # the follower's blocks were: it removes them
            return Unavailable(conflict.message, block=conflict.block)
        reason = f"reorganised: block {conflict.block} is 0x{conflict.found.hex()} now"
        count = self._forks.invalidate(conflict.versions, reason)
        return Unavailable(
            f"{conflict.message}: {count} committed ranges were invalidated and are fetched again, then this one",
            block=conflict.block,
        )

    def _lied(self, conflict: ForkConflict, pools: Sequence[RpcPool], used: set[str]) -> TraceError:
        error = VerificationFailed(
            "these rows are of a fork: their block is not the chain's",
            block=conflict.block,
            expected=f"0x{conflict.committed.hex()}",
            got=f"0x{conflict.found.hex()}",
            endpoint=",".join(sorted(used)),
        )
        for endpoint in _endpoints(pools):
            if endpoint.name in used:
                self._record_liar(endpoint, str(error))
        return error


def _shown(block: int, chain: Chain, pools: Sequence[RpcPool]) -> set[bytes | None]:
    """Return the proven hashes that the endpoints show for a block; None stands for an endpoint that shows none."""
    found: set[bytes | None] = set()
    for endpoint in _endpoints(pools) if block >= 0 else ():
        try:
            (answer,) = call_all(endpoint, [("eth_getBlockByNumber", [hex(block), False])])
            found.add(prove.prove_header(rpc_json.decode_block(answer, full=False), block, chain).hash)
        except TraceError:
            found.add(None)
    return found


def _endpoints(pools: Sequence[RpcPool]) -> list[Endpoint]:
    return list({endpoint.url: endpoint for pool in pools for endpoint in pool.endpoints}.values())
