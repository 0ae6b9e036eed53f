"""The gateway's local URL in place of the URLs of endpoints that are only asked through it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from trace_dagster.config.rpc_pools import is_websocket_variable
from trace_dagster.config.settings import Settings
from trace_dagster.rpc.latency import is_far_or_silent
from trace_dagster.rpc.pools import Endpoint, RpcPool, variable_of


def behind_gateway(variables: Mapping[str, str], gateway_url: str) -> dict[str, str]:
    """Return ``variables`` with the gateway's local URL in place of each endpoint that is only asked through it.

    These are the endpoints with limits, those that are far away, and those on other machines that do not answer now.
    WebSocket URLs are emptied, because only the gateway subscribes to heads.
    """
    settings = Settings.read(variables)
    variables = {name: "" if is_websocket_variable(name) else value for name, value in variables.items()}
    if settings.gateway.mode == "never":
        return variables
    pools = {variable_of(name): pool for name, pool in settings.rpc.pools.items()}
    if (fallback := settings.rpc.fallback_pool) is not None:
        pools["TRACE_CRYO_RPC_URL"] = fallback
    is_always = settings.gateway.mode == "always"
    return {
        **variables,
        **{variable: _local_urls(pool, gateway_url, is_always=is_always) for variable, pool in pools.items()},
    }


def _local_urls(pool: RpcPool, gateway_url: str, *, is_always: bool) -> str:
    def address(endpoint: Endpoint) -> str:
        is_hidden = is_always or pool.limits.are_set or is_far_or_silent(endpoint)
        return endpoint.local_url(gateway_url) if is_hidden else endpoint.url

    with ThreadPoolExecutor(len(pool.endpoints)) as threads:  # one that does not answer takes ten seconds
        return ",".join(threads.map(address, pool.endpoints))
