"""RPC pools as streams use them: checked to serve the stream's chain, and routed through the gateway if that pays."""

from __future__ import annotations

from collections.abc import Callable

from trace_dagster.gateway.routing import GatewayRouting
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.rpc.client import require_chain
from trace_dagster.rpc.pools import RpcPool


class StreamPools:
    """The pools of one process. Each pool is asked for its chain id a single time."""

    def __init__(self, pool_named: Callable[[str], RpcPool], routing: GatewayRouting) -> None:
        self._pool_named = pool_named
        self._routing = routing
        self._checked: set[tuple[str, int]] = set()
        self._fetched: dict[tuple[str, int], frozenset[str]] = {}
        """``blocks`` or ``receipts``, if the streams of a pool and chain fetch them of every block."""

    def named(self, name: str, chain_id: int) -> RpcPool:
        """Return a pool whose endpoints serve ``chain_id``.

        Raises InvalidInput if the pool is unknown or serves another chain, Unavailable if it does not answer.
        """
        pool = self._routing.through(self._pool_named(name), self._fetched.get((name, chain_id), frozenset()))
        if (name, chain_id) not in self._checked:
            require_chain(pool, chain_id)
            self._checked.add((name, chain_id))
        return pool

    def of_stream(self, spec: StreamSpec) -> RpcPool:
        """Return the pool of a stream. Its gateway URLs name the data that this process fetches of every block."""
        from trace_dagster.evidence.needs import fetched  # the head sensor uses pools too, and needs no proofs

        key = (spec.rpc_pool, spec.chain_id)
        self._fetched[key] = self._fetched.get(key, frozenset()) | fetched(spec.dataset, spec.columns, spec.check_level)
        return self.named(*key)


class MadeUpPools:
    """The pools of an engine that makes up its chain: they ask no node."""

    def named(self, name: str, chain_id: int) -> RpcPool:
        """Return a pool without a node."""
        del chain_id
        return RpcPool(name, ("made up",))

    def of_stream(self, spec: StreamSpec) -> RpcPool:
        """Return the pool of a stream, without a node."""
        return self.named(spec.rpc_pool, spec.chain_id)
