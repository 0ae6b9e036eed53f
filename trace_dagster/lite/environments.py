"""The environment of each child of the stack: the settings and secrets that it needs, and no other.

The gateway has the URLs of the RPC pools. The code server and its runs have them only for endpoints that they ask
directly; for the others they have the gateway's local URL. The follower has the gateway's local URL for all of them.
Web server, daemon, query service and devchain have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from trace_dagster.config.local_urls import behind_gateway
from trace_dagster.config.process import gateway_environment, plain_environment
from trace_dagster.config.running_stack import CREDENTIALS, STORE_VARIABLES
from trace_dagster.config.settings import Settings

_OF_DAGSTER = ("DAGSTER_", "PYTHON", "TRACE_LOG_")
_OF_DAGSTER_TOO = {"TRACE_HOME", "TRACE_POSTGRES_URL", "TRACE_LEASE_TTL_SECONDS", "TRACE_STACK_ID"}
_OF_FOLLOWER = ("TRACE_RPC_", "TRACE_CRYO_", "TRACE_LOG_")
_OF_FOLLOWER_TOO = {"TRACE_HOME", "TRACE_POSTGRES_URL", "TRACE_STACK_ID", "NUMBA_CACHE_DIR"}
_OF_QUERIES = ("TRACE_QUERY_", "TRACE_LOG_")
_QUERY_KEYS = {"TRACE_S3_QUERY_ACCESS_KEY_ID", "TRACE_S3_QUERY_SECRET_ACCESS_KEY"}
_OF_QUERIES_TOO = {"TRACE_HOME", "TRACE_POSTGRES_URL", "TRACE_STACK_ID", *(STORE_VARIABLES - CREDENTIALS), *_QUERY_KEYS}
_OF_QUERY_CLIENTS = {"TRACE_QUERY_URL", "TRACE_QUERY_TOKEN"}
_OF_OTHERS = ("TRACE_CHAOS_", "TRACE_GATEWAY_", "TRACE_WEB_PASSWORD", *_OF_QUERY_CLIENTS)


def devchain_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that needs no secret."""
    return {**plain_environment(), **{name: value for name, value in given.items() if name.startswith("TRACE_LOG_")}}


def gateway_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the gateway: the pools, their limits, and the registry."""
    return gateway_environment(Settings.read(variables))


def follower_environment(variables: Mapping[str, str], gateway_url: str) -> dict[str, str]:
    """Return the environment of the tip follower: the registry, and every pool under the gateway's local URL.

    With TRACE_RPC_GATEWAY=never it has the pools' own URLs. It has no credentials of the object store.
    """
    mode = "never" if variables.get("TRACE_RPC_GATEWAY") == "never" else "always"
    routed = behind_gateway({**variables, "TRACE_RPC_GATEWAY": mode}, gateway_url)
    own = {name: value for name, value in routed.items() if name.startswith(_OF_FOLLOWER) or name in _OF_FOLLOWER_TOO}
    return {**plain_environment(), **own}


def query_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the query service: the registry, its limits, and the object store.

    It has the key that may only read, if there is one, and then no other credentials.
    """
    has_own_key = all(variables.get(name) for name in _QUERY_KEYS)
    prefixes = _OF_QUERIES if has_own_key else (*_OF_QUERIES, "AWS_")
    needed = {name for name in variables if name.startswith(prefixes) or name in _OF_QUERIES_TOO}
    return {**plain_environment(), **{name: variables[name] for name in needed - _OF_QUERY_CLIENTS}}


def dagster_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of Dagster's web server and daemon, which only use the registry's database."""
    kept = {name: value for name, value in variables.items() if name.startswith(_OF_DAGSTER) or name in _OF_DAGSTER_TOO}
    return {**plain_environment(), **kept}


def code_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the code server and its runs.

    ``variables`` must be those of :func:`~trace_dagster.config.local_urls.behind_gateway`.
    """
    return {name: value for name, value in variables.items() if not name.startswith(_OF_OTHERS)}
