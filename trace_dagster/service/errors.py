"""The shape of every error that the service answers with, and which error has which status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from trace_dagster.errors import (
    Cancelled,
    Corrupt,
    CursorGone,
    InvalidInput,
    NoAccess,
    Refused,
    TooLate,
    TooMany,
    TraceError,
    Unavailable,
    WrongSetup,
)
from trace_dagster.messages.logs import component_log

_log = component_log("service")

_KINDS: dict[type[TraceError], tuple[int, str]] = {
    InvalidInput: (400, "invalid"),
    NoAccess: (401, "no_access"),
    TooLate: (408, "too_late"),
    Cancelled: (409, "cancelled"),
    Refused: (409, "conflict"),
    CursorGone: (410, "cursor_gone"),
    TooMany: (429, "too_many"),
    Unavailable: (503, "unavailable"),
    Corrupt: (503, "corrupt"),
}
_HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "1"},
    503: {"Retry-After": "1"},
}
"""Headers of a status, unless the error has its own."""
_RETRY_FACT = "retry_after_seconds"

MEANINGS = {
    400: "The SQL, a parameter, or another value is refused.",
    401: "The request shows no valid token.",
    403: "The token may not do this, or the request comes from another site.",
    404: "There is no such thing, or the token may not see it.",
    405: "The path does not take this method.",
    408: "The query ran until its deadline, or the request did not arrive in time.",
    409: "The query was cancelled, or its id was used before.",
    410: "The changes after the cursor are no longer kept.",
    413: "The body or its SQL is too large.",
    422: "The body, a header or a parameter of the URL has a wrong form.",
    429: "Too many requests or queries now: try again after Retry-After.",
    503: "The registry, the object store or a query's process is not available.",
    505: "A stream needs HTTP/1.1.",
}


class ErrorMembers(BaseModel):
    """What an error says."""

    status: int
    code: str
    message: str
    query_id: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorMembers


class HttpRefusal(Exception):
    """A request that is refused as such, before anything of the package sees it."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def refusal_of(error: TraceError) -> HttpRefusal:
    """Return how the service answers an error. One that no caller can cause is a 500 without its text."""
    if isinstance(error, WrongSetup):
        _log.warning("wrong_setup", reason=error.message)
        return HttpRefusal(
            503, "unavailable", "a server refuses this service: its operator finds the reason in its log"
        )
    for kind in type(error).__mro__:
        if found := _KINDS.get(kind):
            facts = {name: value for name, value in error.facts.items() if name != _RETRY_FACT}
            after = {"Retry-After": str(error.facts[_RETRY_FACT])} if _RETRY_FACT in error.facts else {}
            return HttpRefusal(*found, _with_facts(error.message, facts), after)
    return internal_error()


def internal_error() -> HttpRefusal:
    """Return the answer for an error that nobody expected."""
    return HttpRefusal(500, "internal", "the service failed unexpectedly: its log says where; try again later")


def error_response(refusal: HttpRefusal, query_id: str | None = None) -> JSONResponse:
    """Return the answer for an error. ``query_id`` names the query that failed."""
    members: dict[str, Any] = {"status": refusal.status, "code": refusal.code, "message": _line(refusal.message)}
    if query_id is not None:
        members["query_id"] = query_id
    headers = {
        **_HEADERS.get(refusal.status, {}),
        **({"Trace-Query-Id": query_id} if query_id else {}),
        **refusal.headers,
    }
    return JSONResponse({"error": members}, refusal.status, headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of these statuses."""
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


def _with_facts(message: str, facts: Mapping[str, object]) -> str:
    return " ".join([message, *(f"{name}={value}" for name, value in facts.items())])


def _line(text: str) -> str:
    return " ".join(text.split())
