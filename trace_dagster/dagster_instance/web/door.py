"""The door before Dagster's web server, as ASGI middleware.

Dagster checks neither the Host nor the Origin of a request, executes mutations that come by GET, and knows no password.
So any page that a user opens, or a name that resolves to 127.0.0.1, could launch and delete runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from graphql import GraphQLError, Lexer, Source, TokenKind
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from trace_dagster.config.web_password import shows

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NOT_BY_GET = {"mutation", "subscription"}
_OPENING = {TokenKind.BRACE_L, TokenKind.PAREN_L, TokenKind.BRACKET_L}
_CLOSING = {TokenKind.BRACE_R, TokenKind.PAREN_R, TokenKind.BRACKET_R}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason of a refusal, with the status and text of its HTTP response."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> PlainTextResponse:
        """Return the HTTP response."""
        return PlainTextResponse(self.text + "\n", self.status, dict(self.headers))


_WRONG_HOST = Refusal(
    403,
    "refused: the Host header names another server; use 127.0.0.1 or localhost, or start the web server with"
    " TRACE_WEB_URL set to the address that you use",
)
_WRONG_ORIGIN = Refusal(403, "refused: the request comes from a page of another origin")
_BY_GET = Refusal(405, "refused: a mutation must be sent by POST", (("Allow", "POST"),))
_NO_PASSWORD = Refusal(
    401,
    "refused: the password of TRACE_WEB_PASSWORD is needed, with any user name",
    (("WWW-Authenticate", 'Basic realm="trace_dagster", charset="UTF-8"'),),
)


class Door:
    """Passes the requests and WebSockets on that may reach ``app``, and answers the others."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] = (), password: str | None = None) -> None:
        """``hosts`` are names by which the server may be asked in addition to those of loopback."""
        self._app = app
        self._hosts = LOOPBACK_HOSTS | {host.lower() for host in hosts}
        self._password = password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan."""
        refusal = self._refusal(HTTPConnection(scope)) if scope["type"] in {"http", "websocket"} else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal.response()(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(refusal.response())

    def _refusal(self, asked: HTTPConnection) -> Refusal | None:
        host = _only(asked.headers.getlist("host"))
        found = _HOST.fullmatch(host)
        if found is None or found["name"].lower() not in self._hosts:
            return _WRONG_HOST
        if not all(_is_origin_of(origin, host) for origin in asked.headers.getlist("origin")):
            return _WRONG_ORIGIN
        if self._password is not None and not shows(_only(asked.headers.getlist("authorization")), self._password):
            return _NO_PASSWORD
        return (
            _BY_GET if _is_get_of_graphql(asked) and any(map(_mutates, asked.query_params.getlist("query"))) else None
        )


def _only(values: list[str]) -> str:
    """Return the value of a header that is sent one time, else nothing: servers disagree about which one counts."""
    return values[0] if len(values) == 1 else ""


def _is_origin_of(origin: str, host: str) -> bool:
    """Return whether an Origin header names the server that a Host header names."""
    scheme, _, place = origin.lower().partition("://")
    if scheme not in _DEFAULT_PORTS:
        return False
    return _place(place, scheme) == _place(host.lower(), scheme) is not None


def _place(text: str, scheme: str) -> tuple[str, int] | None:
    found = _HOST.fullmatch(text)
    return None if found is None else (found["name"], int(found["port"] or _DEFAULT_PORTS[scheme]))


def _is_get_of_graphql(asked: HTTPConnection) -> bool:
    return asked.scope.get("method") in {"GET", "HEAD"} and asked.scope["path"].endswith("/graphql")


def _mutates(query: str) -> bool:
    """Return whether a GraphQL document holds an operation other than a query, or a query with the name of another.

    It is read by tokens, not parsed: the parser gives up at a depth that depends on the stack that is left, so Dagster
    may parse what failed here. Dagster also refuses text without tokens.
    """
    lexer, depth = Lexer(Source(query)), 0
    try:
        while (token := lexer.advance()).kind is not TokenKind.EOF:
            depth += (token.kind in _OPENING) - (token.kind in _CLOSING)
            if depth <= 0 and token.value in _NOT_BY_GET:
                return True
    except GraphQLError:
        return False
    return False


def host_of(url: str) -> str | None:
    """Return the host of a URL as a Host header writes it."""
    name = urlsplit(url).hostname
    return f"[{name}]" if name and ":" in name else name
