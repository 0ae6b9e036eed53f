"""What stands before the routes: requests that a browser sends for a page of another site are refused.

Three attacks are meant. A page elsewhere may send requests to this server: browsers then name its origin. A name of the
attacker's may resolve to 127.0.0.1 (DNS rebinding): the Host header has that name. Another server on this machine, at
another port, is the same site for cookies: SameSite does not keep the session's cookie from its requests.

Requests below /v1/, and of /metrics, with an Authorization header are not checked for their host, so that programs may
use any name: only the token counts there, and a page cannot know it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from trace_dagster.service.callers import SESSION_COOKIE
from trace_dagster.service.errors import HttpRefusal, error_response

_PLACE = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE | re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_API = "/v1/"
_METRICS = "/metrics"

_WRONG_HOST = (
    "the Host header names another server: use 127.0.0.1 or localhost, send a token, or start the service with the name"
    " in TRACE_QUERY_HOSTS"
)
_WRONG_ORIGIN = "the request comes from a page of another origin: ask from the service's own page, or from a program"


@dataclass(frozen=True, slots=True)
class Place:
    """A host, and its port if one is written."""

    name: str
    port: int | None

    @classmethod
    def of(cls, text: str) -> Place | None:
        """Return the place that a Host header, or an entry of TRACE_QUERY_HOSTS, names; None if it names none."""
        found = _PLACE.fullmatch(text)
        return None if found is None else cls(found["name"].lower(), int(found["port"]) if found["port"] else None)

    def is_address(self) -> bool:
        """Whether it is an IP address or localhost, which no one can make resolve to another machine's service."""
        if self.name == "localhost":
            return True
        try:
            ip_address(self.name.strip("[]"))
        except ValueError:
            return False
        return True


class SameOrigin:
    """Passes on the requests that may reach ``app``, and answers the others with 403. WebSockets are refused."""

    def __init__(
        self, app: ASGIApp, *, denied: Callable[[HTTPConnection], Awaitable[None]], hosts: Iterable[str] = ()
    ) -> None:
        """``hosts`` are names by which browsers may reach the service, besides addresses and localhost. With a port, a
        name stands for this port only. ``denied`` is called for each request that is refused.
        """
        self._app = app
        self._denied = denied
        self._hosts = frozenset(place for host in hosts if (place := Place.of(host.strip())))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        reason = self._refusal(asked) if scope["type"] == "http" else _WRONG_ORIGIN
        if reason is None:
            await self._app(scope, receive, send)
            return
        await self._denied(asked)
        if scope["type"] == "http":
            await _forbidden(reason)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "there is no WebSocket here"})

    def _refusal(self, asked: HTTPConnection) -> str | None:
        host = Place.of(_only(asked.headers.getlist("host")))
        has_token = bool(asked.headers.getlist("authorization"))
        path = asked.scope["path"]
        is_of_program = has_token and (path.startswith(_API) or path == _METRICS)
        if not is_of_program and not (host and self._is_known(host)):
            return _WRONG_HOST
        origins = asked.headers.getlist("origin")
        if not all(self._is_own(origin, host) for origin in origins):
            return _WRONG_ORIGIN
        if not has_token and _uses_session(asked) and not _is_by_own_page(asked, has_origin=bool(origins)):
            return _WRONG_ORIGIN
        return None

    def _is_known(self, place: Place) -> bool:
        return place.is_address() or place in self._hosts or Place(place.name, None) in self._hosts

    def _is_own(self, origin: str, host: Place | None) -> bool:
        """Return whether an Origin header names this service: as the Host header does, or as TRACE_QUERY_HOSTS does."""
        scheme, _, text = origin.lower().partition("://")
        place = Place.of(text)
        if scheme not in _DEFAULT_PORTS or place is None:
            return False
        default = _DEFAULT_PORTS[scheme]
        known = {host, *self._hosts}
        return any(each and each.name == place.name and _same_port(each, place, default) for each in known)


def _same_port(one: Place, other: Place, default: int) -> bool:
    return (one.port or default) == (other.port or default)


def _only(values: list[str]) -> str:
    """Return the value of a header that is sent one time, else nothing: servers disagree about which one counts."""
    return values[0] if len(values) == 1 else ""


def _uses_session(asked: HTTPConnection) -> bool:
    cookies = asked.headers.getlist("cookie")
    return asked.scope["path"].startswith(_API) and any(SESSION_COOKIE in each for each in cookies)


def _is_by_own_page(asked: HTTPConnection, *, has_origin: bool) -> bool:
    """Return whether a request with the session's cookie comes from the service's page.

    Browsers send Sec-Fetch-Site with each request to HTTPS or localhost, and Origin with each one that may change
    something. An old browser sends neither with a GET, whose answer no other page can read.
    """
    site = _only(asked.headers.getlist("sec-fetch-site")).lower()
    is_safe = asked.scope["method"] in _SAFE
    if site:
        return site == "same-origin" or (site == "none" and is_safe)
    return has_origin or is_safe


def _forbidden(reason: str) -> Response:
    return error_response(HttpRefusal(403, "forbidden", reason))
