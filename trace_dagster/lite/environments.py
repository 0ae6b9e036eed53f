"""The environment of each child of the stack: the settings and secrets that it needs, and no other.

The gateway has the URLs of the RPC pools. The code server and its runs have them only for endpoints that they ask
directly; for the others they have the gateway's local URL. Web server, daemon and devchain have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from trace_dagster.config.process import gateway_environment, plain_environment
from trace_dagster.config.settings import Settings
from trace_dagster.loopback import on_loopback
from trace_dagster.rpc.latency import is_far, latency_seconds
from trace_dagster.rpc.pools import Endpoint, RpcPool, variable_of

_OF_DAGSTER = ("DAGSTER_", "PYTHON", "TRACE_LOG_")
_OF_DAGSTER_TOO = {"TRACE_HOME", "TRACE_POSTGRES_URL", "TRACE_LEASE_TTL_SECONDS", "TRACE_STACK_ID"}
_OF_OTHERS = ("TRACE_CHAOS_", "TRACE_GATEWAY_", "TRACE_WEB_PASSWORD")


def devchain_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that needs no secret."""
    return {**plain_environment(), **{name: value for name, value in given.items() if name.startswith("TRACE_LOG_")}}


def gateway_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the gateway: the pools, their limits, and the registry."""
    return gateway_environment(Settings.read(variables))


def dagster_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of Dagster's web server and daemon, which only use the registry's database."""
    kept = {name: value for name, value in variables.items() if name.startswith(_OF_DAGSTER) or name in _OF_DAGSTER_TOO}
    return {**plain_environment(), **kept}


def code_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the code server and its runs.

    ``variables`` must be those of :func:`behind_gateway`.
    """
    return {name: value for name, value in variables.items() if not name.startswith(_OF_OTHERS)}


def behind_gateway(variables: Mapping[str, str], gateway_url: str) -> dict[str, str]:
    """Return ``variables`` with the gateway's local URL in place of each endpoint that is only asked through it.

    These are the endpoints with limits, those that are far away, and those on other machines that do not answer now.
    """
    settings = Settings.read(variables)
    if settings.gateway.mode == "never":
        return dict(variables)
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
        is_hidden = is_always or pool.limits.are_set or _is_far_or_silent(endpoint)
        return endpoint.local_url(gateway_url) if is_hidden else endpoint.url

    with ThreadPoolExecutor(len(pool.endpoints)) as threads:  # one that does not answer takes ten seconds
        return ",".join(threads.map(address, pool.endpoints))


def _is_far_or_silent(endpoint: Endpoint) -> bool:
    if on_loopback(endpoint.url):
        return False
    return is_far(endpoint) or latency_seconds(endpoint) is None
