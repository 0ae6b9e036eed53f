"""Stands before all routes: headers that every answer has, and the answer to an error that nobody expected."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trace_dagster.messages.logs import component_log
from trace_dagster.service.connections import break_off
from trace_dagster.service.errors import error_response, internal_error

_log = component_log("service")

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""Added unless a route sets them itself."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD" and not scope["path"].startswith("/v1/"):
            scope = {**scope, "method": "GET"}  # the server sends no body; checks of health ask so
        is_started = False

        async def guarded(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in _HEADERS if each[0] not in given)]
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception as error:  # its text may hold what a caller sent: it is not logged
            _log.warning("request_failed", path=_path(scope), reason=type(error).__name__, at=_place(error))
            if is_started:
                break_off(scope)
            else:
                await error_response(internal_error())(scope, receive, guarded)


def _path(scope: Scope) -> str:
    """Return the path as the route names it, without what the caller wrote into it."""
    return str(getattr(scope.get("route"), "path", "unknown"))


def _place(error: BaseException) -> str:
    """Return module and line of the innermost code that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown" if trace is None else f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
