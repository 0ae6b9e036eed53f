"""Which endpoints are used through a gateway, and which directly: by their limits and their measured latency.

A gateway helps if an endpoint is far away or has a rate limit. For a node on the same machine or network it only adds
its own latency to each request; such a node is used directly (docs/performance.md has the figures).
"""

from __future__ import annotations

import threading
from dataclasses import replace

from trace_dagster.config.process import gateway_environment
from trace_dagster.config.settings import Settings
from trace_dagster.gateway.child_process import ChildGateway
from trace_dagster.gateway.described_pools import PoolReader
from trace_dagster.rpc.latency import is_far
from trace_dagster.rpc.pools import Endpoint, Limits, RpcPool


def is_routed(settings: Settings, endpoint: Endpoint, limits: Limits) -> bool:
    """Return whether calls to an endpoint go through the gateway. Measures the endpoint's latency if nothing else
    decides.
    """
    if settings.gateway_url is not None and endpoint.url.startswith(f"{settings.gateway_url}/"):
        return True  # the endpoint's own URL is hidden from this process
    mode = settings.gateway.mode
    return mode != "never" and (mode == "always" or limits.are_set or is_far(endpoint))


class GatewayRouting:
    """Decides for each endpoint whether calls go to it directly or through the gateway.

    If no gateway URL is configured, the first endpoint that needs a gateway starts one as a child process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.gateway_url
        self._lock = threading.Lock()
        self._owned: ChildGateway | None = None
        self._described = PoolReader(self._url) if self._url and settings.gateway.mode != "never" else None

    def named(self, name: str) -> RpcPool:
        """Return a pool by name. If this process has no URL for it, ask the gateway that runs already.

        Raises InvalidInput if neither knows the pool, Unavailable if the gateway does not answer.
        """
        rpc = self._settings.rpc
        is_known = name in rpc.pools or rpc.fallback is not None
        return rpc.pool(name) if is_known or self._described is None else self._described.pool(name)

    def through(self, pool: RpcPool, wanted: frozenset[str] = frozenset()) -> RpcPool:
        """Return the pool with the gateway URLs of the endpoints that are used through a gateway.

        ``wanted`` (``blocks``, ``receipts``) is the data that is fetched of each block anyway, see ``gateway.py``.
        """
        urls = tuple(self._url_of(endpoint, pool.limits, wanted) for endpoint in pool.endpoints)
        return replace(pool, gateway_urls=urls)

    def for_tip(self, pool: RpcPool) -> RpcPool:
        """Return the pool for calls about the newest blocks: all its endpoints through a gateway, if there is one.

        One is used if it runs already, if the pool has WebSocket URLs, or if an endpoint needs it anyway. It sends
        such calls before all others, see :meth:`Endpoint.tip`, and streams new heads.
        """
        may_use = self._settings.gateway.mode != "never"
        is_used = may_use and bool(self._url or any(pool.websocket_urls))
        if not is_used and not any(is_routed(self._settings, each, pool.limits) for each in pool.endpoints):
            return pool
        gateway = self._gateway()
        return replace(pool, gateway_urls=tuple(f"{gateway}/{each.pool}/{each.position}" for each in pool.endpoints))

    def close(self) -> None:
        """End the gateway if this object started one."""
        with self._lock:
            if self._owned is not None:
                self._owned.close()

    def _url_of(self, endpoint: Endpoint, limits: Limits, wanted: frozenset[str]) -> str:
        if not is_routed(self._settings, endpoint, limits):
            return ""
        path = f"{self._gateway()}/{endpoint.pool}/{endpoint.position}"
        return f"{path}/{'+'.join(sorted(wanted))}" if wanted else path

    def _gateway(self) -> str:
        if self._url:
            return self._url
        with self._lock:
            if self._owned is None or not self._owned.alive:
                self._owned = ChildGateway(gateway_environment(self._settings))
            return self._owned.url
