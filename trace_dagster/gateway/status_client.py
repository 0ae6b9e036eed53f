"""Reads the status of a running gateway."""

from __future__ import annotations

import urllib.request
from typing import Any

import msgspec

from trace_dagster.errors import Unavailable

_TIMEOUT_SECONDS = 3.0


class _Endpoint(msgspec.Struct):
    """Counters of one endpoint since the gateway started; rates in calls per second, None if there is no limit."""

    calls_asked: int
    calls_sent: int
    requests_sent: int
    refusals: int
    faults: int
    queued: int
    is_down: bool
    tip_calls: int = 0
    is_subscribed: bool | None = None
    rate: float | None = None
    limit: float | None = None


class _Status(msgspec.Struct):
    endpoints: dict[str, _Endpoint]


def endpoints_asked(url: str) -> dict[str, dict[str, Any]]:
    """Return the counters of each endpoint of the gateway at ``url``, by the endpoint's name.

    Raises Unavailable if the gateway does not answer.
    """
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # an HTTP proxy cannot reach this machine's loopback
    try:
        with direct.open(f"{url}/status", timeout=_TIMEOUT_SECONDS) as answer:
            status = msgspec.json.decode(answer.read(), type=_Status)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise Unavailable("the rpc gateway does not answer", reason=type(error).__name__) from None
    return {name: msgspec.to_builtins(each) for name, each in status.endpoints.items() if each.calls_asked}
