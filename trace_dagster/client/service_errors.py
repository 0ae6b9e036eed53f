"""Errors of a query service, and of the way to it, as those of ``errors.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3.exceptions as of_urllib3

from trace_dagster.errors import (
    Cancelled,
    Corrupt,
    CursorGone,
    InvalidInput,
    NoAccess,
    TooLate,
    TooMany,
    TraceError,
    Unavailable,
)

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_MOST_CHARACTERS = 4000
_BY_STATUS: dict[int, type[TraceError]] = {
    401: NoAccess,
    403: NoAccess,
    408: TooLate,
    410: CursorGone,
    429: TooMany,
    499: Cancelled,
    503: Unavailable,
}
"""Other statuses from 400 to 499 are InvalidInput: another try fails again."""

_BY_CODE: dict[str, type[TraceError]] = {"cancelled": Cancelled, "corrupt": Corrupt}
"""Codes that say more than their status."""


def error_of(host: str, status: int, body: bytes, retry_after: float | None) -> TraceError:
    """Return the error that an answer stands for. ``body`` need not be of our service: a proxy may have answered."""
    if status in REDIRECTS:
        return InvalidInput(f"{host} redirects to another address, to which the token is not sent: give the final URL")
    found = _members(body)
    if found is None:
        return _foreign(host, status)
    message, code = found
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or (InvalidInput if 400 <= status < 500 else TraceError)
    if kind is TooMany and retry_after is not None:
        return TooMany(message, retry_after_seconds=retry_after)
    return kind(message)


def no_service(host: str, status: int) -> InvalidInput:
    """Return the error for an answer that none of our services gives."""
    return InvalidInput(f"{host} does not answer as a query service of trace_dagster: check the URL", http=status)


@contextmanager
def expected_form(host: str) -> Iterator[None]:
    """Raise the error of :func:`no_service` if an answer of JSON lacks what ours have."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError):
        raise no_service(host, 200) from None


class ServiceAway(Unavailable):
    """No service answered. Start it, or check the URL."""


def unreachable(host: str, error: Exception) -> ServiceAway:
    """Return the error for a request that got no answer."""
    match error:
        case of_urllib3.SSLError():
            text = f"TLS with {host} failed: its certificate must be of a known authority, and the URL begin with https"
        case of_urllib3.NameResolutionError():
            text = f"no machine is called {host}: check the URL of the query service"
        case of_urllib3.ReadTimeoutError():
            text = f"{host} sent nothing for too long: ask for fewer blocks, or try again later"
        case of_urllib3.NewConnectionError() | of_urllib3.ConnectTimeoutError():
            text = f"no query service answers at {host}: start it, or check its URL"
        case _:
            text = f"{host} ended the connection without an answer: check the URL, or try again later"
    return ServiceAway(text, reason=type(error).__name__)


def broken(host: str, received: int, error: Exception | None = None) -> Unavailable:
    """Return the error for an answer that ended before its end."""
    reason = {} if error is None else {"reason": type(error).__name__}
    return Unavailable(
        f"the answer of {host} broke off: the query failed midway, or the connection was lost; ask again",
        received_bytes=received,
        **reason,
    )


def cut_headers(host: str) -> Unavailable:
    """Return the error for an answer whose headers lack what marks its end."""
    return Unavailable(
        f"the answer of {host} broke off within its headers, or a proxy removed the mark of its end: ask again, or"
        " without the proxy"
    )


def left_early(host: str) -> Unavailable:
    """Return the error for an answer that its caller closed, and reads."""
    return Unavailable(f"the answer of {host} was closed before its end: ask again, and read it to its end")


def _members(body: bytes) -> tuple[str, str] | None:
    """Return message and code of our error shape; None for another body."""
    try:
        error: Any = json.loads(body)["error"]
        message, code = error["message"], error["code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    if not isinstance(message, str) or not isinstance(code, str):
        return None
    return message[:_MOST_CHARACTERS], code


def _foreign(host: str, status: int) -> TraceError:
    if status in {429, 502, 503, 504}:
        return Unavailable(f"a proxy before the query service at {host} refused: try again later", http=status)
    return no_service(host, status)
