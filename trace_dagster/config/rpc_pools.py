"""The variables of an RPC pool: ``TRACE_RPC_POOL_<NAME>_URL`` and its limits."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from trace_dagster.config.rules import is_http_url, is_websocket_url, whole
from trace_dagster.errors import InvalidInput
from trace_dagster.rpc.pools import BATCH_CALLS, Limits, RpcPool, variable_of


def url_list(value: Any) -> str:
    """Return the text if it holds comma-separated http or https URLs, at least one. Raises ValueError otherwise."""
    urls = split_urls(str(value))
    if not urls or not all(map(is_http_url, urls)):
        raise ValueError("must hold http:// or https:// URLs, comma-separated (value not shown)")
    return str(value)


def websocket_url_list(value: Any) -> str:
    """Return the text if it holds comma-separated ws or wss URLs, at least one. Raises ValueError otherwise.

    A place may be empty: the endpoint at that position then has none.
    """
    urls = [part for part in websocket_urls(str(value)) if part]
    if not urls or not all(map(is_websocket_url, urls)):
        raise ValueError("must hold ws:// or wss:// URLs, comma-separated, in the endpoints' order (value not shown)")
    return str(value)


def _up_to(most: int) -> BeforeValidator:
    return BeforeValidator(whole(1, most, f"must be a number from 1 to {most}"))


class PoolVariables(BaseModel):
    """Settings of one pool. A value is None if its variable is not set."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: Annotated[SecretStr, BeforeValidator(url_list)] | None = Field(
        None, alias="URL", description="endpoints of pool `<name>`, comma-separated; read by `up`"
    )
    websocket_url: Annotated[SecretStr, BeforeValidator(websocket_url_list)] | None = Field(
        None,
        alias="WS_URL",
        description="where the endpoints push new heads, `ws://` or `wss://`, in their order; only the gateway has it",
    )
    quorum: Annotated[int, _up_to(10_000)] | None = Field(
        None, alias="QUORUM", description="how many endpoints must give the same rows before they are committed (1)"
    )
    requests_per_second: Annotated[int, _up_to(1_000_000)] | None = Field(
        None, alias="RPS", description="JSON-RPC calls per second of each endpoint, for all runs together"
    )
    concurrency: Annotated[int, _up_to(10_000)] | None = Field(
        None, alias="CONCURRENCY", description="HTTP requests in flight of each endpoint, for all runs together"
    )
    batch: Annotated[int, _up_to(1000)] | None = Field(
        None, alias="BATCH", description="JSON-RPC calls in one HTTP request (50); 1 if an endpoint takes no batches"
    )


POOL_SETTINGS = tuple(str(field.alias) for field in PoolVariables.model_fields.values())
POOL_VARIABLE = re.compile(rf"TRACE_RPC_POOL_([A-Z][A-Z0-9_]{{0,63}}?)_({'|'.join(POOL_SETTINGS)})")
"""Shortest name first: TRACE_RPC_POOL_X_WS_URL is the WS_URL of pool x, not the URL of a pool x_ws."""


def pool_of(name: str, variables: PoolVariables, urls: SecretStr) -> RpcPool:
    """Return the pool. Raises InvalidInput if it has fewer URLs than its quorum or its WebSocket URLs need."""
    found = split_urls(urls.get_secret_value())
    if (variables.quorum or 1) > len(found):
        raise InvalidInput(
            f"{variable_of(name, 'QUORUM')} must be a number from 1 to the pool's {len(found)} endpoints"
        )
    websockets = websocket_urls(variables.websocket_url.get_secret_value()) if variables.websocket_url else ()
    if len(websockets) > len(found):
        raise InvalidInput(
            f"{variable_of(name, 'WS_URL')} has {len(websockets)} places, but the pool has {len(found)} endpoints:"
            f" give at most one for each URL of {variable_of(name)}"
        )
    limits = Limits(variables.requests_per_second, variables.concurrency, variables.batch or BATCH_CALLS)
    return RpcPool(name, found, variables.quorum or 1, limits, websocket_urls=websockets)


def split_urls(text: str) -> tuple[str, ...]:
    """Return the URLs of a comma-separated list, each a single time."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def websocket_urls(text: str) -> tuple[str, ...]:
    """Return the URLs of a comma-separated list by position; empty where a place is empty."""
    return tuple(part.strip() for part in text.rstrip(", ").split(","))


def is_websocket_variable(variable: str) -> bool:
    """Return whether a variable holds a pool's WebSocket URLs."""
    match = POOL_VARIABLE.fullmatch(variable)
    return match is not None and match[2] == "WS_URL"
