"""Connects to a query service: that of the arguments, of the environment, or of the stack that runs here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from trace_dagster.client.lake import ConnectedLake
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import InvalidInput

_URL, _TOKEN = "TRACE_QUERY_URL", "TRACE_QUERY_TOKEN"
_NO_SERVICE = (
    "no query service is known: run `trace-lite up` in this folder, or set TRACE_QUERY_URL and TRACE_QUERY_TOKEN"
)


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """Where a query service is, and the token for it."""

    url: str
    token: str | None = field(repr=False)


def connect(
    url: str | None = None, token: str | None = None, *, retries: int = 2, timeout_seconds: float = 3600.0
) -> ConnectedLake:
    """Return the lake behind a query service.

    Without ``url`` it is the service of TRACE_QUERY_URL, else that of the stack which runs under TRACE_HOME. Nothing is
    sent before the first question.

    :param token: a token of ``trace-lite token new``; else TRACE_QUERY_TOKEN, or the stack's own.
    :param retries: how often a question is asked again if the service has no place for it, or is away.
    :param timeout_seconds: the longest time without a byte of an answer.

    Raises InvalidInput if there is no service, or if an argument has a wrong type or form.
    """
    address = find_service(os.environ, url, token)
    if address is None:
        raise InvalidInput(_NO_SERVICE)
    return ConnectedLake(ServiceHttp(address.url, address.token, retries, timeout_seconds))


def find_service(
    environment: Mapping[str, str], url: str | None = None, token: str | None = None
) -> ServiceAddress | None:
    """Return the service to ask, or None. A token that belongs to one URL is not sent to another one.

    An empty ``url`` or ``token`` counts as None. Raises InvalidInput if one is no text.
    """
    for name, value in (("url", url), ("token", token)):
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"{name} is a text, not {type(value).__name__}")
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    if url:
        if not token and _is_other(url, given.get(_URL)):
            given.pop(_TOKEN, None)
        given[_URL] = url
    if token:
        given[_TOKEN] = token
    if not {_URL, _TOKEN} <= given.keys():
        from trace_dagster.config.running_stack import environment_with_stack

        given = environment_with_stack(given)
    found = given.get(_URL)
    return ServiceAddress(found, given.get(_TOKEN)) if found else None


def _is_other(url: str, known: str | None) -> bool:
    return known is not None and known.rstrip("/") != url.rstrip("/")
