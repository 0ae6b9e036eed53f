"""The environment of each child of the stack: the settings and secrets that it needs, and no other.

The gateway has the URLs of the RPC pools. The code server and its runs have them only for endpoints that they ask
directly; for the others they have the gateway's local URL. Web server, daemon and devchain have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from trace_dagster.config.process import gateway_environment, plain_environment
from trace_dagster.config.settings import Settings

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

    ``variables`` must be those of :func:`~trace_dagster.config.local_urls.behind_gateway`.
    """
    return {name: value for name, value in variables.items() if not name.startswith(_OF_OTHERS)}
