"""Finds out who sent a request: by its bearer token, else by the cookie of a session of the page."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import HTTPConnection, Request

from trace_dagster.errors import NoAccess, Unavailable
from trace_dagster.registry.query_log import QueryLog
from trace_dagster.registry.tokens import Caller, Tokens
from trace_dagster.service.errors import HttpRefusal
from trace_dagster.service.metrics import Denial
from trace_dagster.service.parts import Parts, parts_of

SESSION_COOKIE = "trace_session"
QUERY_PATH = "/v1/query"

_TOKEN = HTTPBearer(scheme_name="token", auto_error=False)
_SESSION = APIKeyCookie(name=SESSION_COOKIE, scheme_name="session", auto_error=False)
_HOW = "show a token: send `Authorization: Bearer TOKEN`, with one from `trace-lite token new`"


def caller_of(request: Request) -> Caller:
    """Return who sent a request; a FastAPI dependency. A denied query is logged.

    Raises NoAccess if it shows no valid token, or several.
    """
    parts = parts_of(request)
    try:
        return Tokens(parts.database).caller(_token_of(request))
    except NoAccess:
        note_denial(parts, request, "token")
        raise


def note_denial(parts: Parts, request: HTTPConnection, reason: Denial) -> None:
    """Count a request that is denied, and log it if it is a query."""
    parts.metrics.denied(reason)
    if request.scope.get("method") == "POST" and request.scope["path"] == QUERY_PATH:
        with suppress(Unavailable):  # it is denied all the same
            QueryLog(parts.database).denied()


def _known_caller(
    request: Request, _token: Annotated[object, Security(_TOKEN)], _cookie: Annotated[object, Security(_SESSION)]
) -> Caller:
    """Return who sent a request. The other parameters only tell the OpenAPI document how a caller shows it."""
    return caller_of(request)


KnownCaller = Annotated[Caller, Depends(_known_caller)]
"""The type of a route's parameter that is its caller."""


def require_known_parameters(request: Request) -> None:
    """Raise HttpRefusal 422 if the URL has a parameter that the route does not have; a FastAPI dependency.

    A misspelt one would otherwise be ignored: the answer would look right and hold something else.
    """
    known = [each.alias for each in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise HttpRefusal(
                422, "wrong_form", f"the request has a wrong form: {name[:80]!r} is no parameter of this path: {has}"
            )


def _api_caller(request: Request, caller: KnownCaller) -> Caller:
    require_known_parameters(request)  # after the caller is known: a stranger learns nothing else
    return caller


ApiCaller = Annotated[Caller, Depends(_api_caller)]
"""The same for routes below /v1/, whose URLs may have no parameter but their own."""


def session_token(request: Request) -> str | None:
    """Return the token in the session's cookie; None if there is none. Raises NoAccess if there are several."""
    found = [
        value
        for header in request.headers.getlist("cookie")
        for name, _, value in (part.strip(" \t").partition("=") for part in header.split(";"))
        if name == SESSION_COOKIE
    ]
    if len(found) > 1:
        raise NoAccess(
            f"the browser sent several cookies {SESSION_COOKIE}: delete the cookies of this host, then log in again"
        )
    return found[0] if found else None


def _token_of(request: Request) -> str:
    authorizations = request.headers.getlist("authorization")
    if len(authorizations) > 1:
        raise NoAccess("the request has several Authorization headers: send one")
    if authorizations:
        scheme, _, token = authorizations[0].partition(" ")
        if scheme.lower() != "bearer":
            raise NoAccess(f"the Authorization header has no bearer token: {_HOW}")
        return token.strip(" ")
    token_of_session = session_token(request)
    if token_of_session is None:
        raise NoAccess(_HOW)
    return token_of_session
