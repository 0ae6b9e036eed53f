"""Answers with changes of the lake: a page as soon as there is one, or server-sent events without an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from trace_dagster.errors import Cancelled, TraceError
from trace_dagster.registry.changes import Change
from trace_dagster.registry.tokens import Caller
from trace_dagster.service.change_feed import PAGE, Listener, SharedFeed
from trace_dagster.service.connections import break_off
from trace_dagster.service.errors import error_response, refusal_of
from trace_dagster.service.sending import AnswerSender

HEARTBEAT_SECONDS = 15.0
"""So often an idle stream sends a comment, and so often the token is checked again."""

_LEAST_PAGE = 100
_SEARCH_SECONDS = 5.0
"""A page without waiting searches for so long among changes that its token may not see."""

_EVENT_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would hold events back until it has many
}


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """Who listens, and from where on."""

    feed: SharedFeed
    caller: Caller
    check: Callable[[], Caller]
    """Reads the token again. Raises NoAccess if it is not valid any more."""
    cursor: str

    async def checked(self) -> Caller:
        """Return what the token allows now."""
        return await self.feed.run(self.check)


class ChangePage(Response):
    """Answers with changes after a cursor, at most ``limit``; waits up to ``wait_seconds`` for the first one."""

    def __init__(self, request: ChangeRequest, limit: int, wait_seconds: float) -> None:
        super().__init__()
        self._request = request
        self._limit = limit
        self._size = min(PAGE, max(limit, _LEAST_PAGE))
        self._wait_seconds = wait_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client leaves before."""
        try:
            page = await _unless_left(self._page(), receive)
        except TraceError as error:
            await error_response(refusal_of(error))(scope, receive, send)
            return
        if page is not None:
            await JSONResponse(page)(scope, receive, send)

    async def _page(self) -> dict[str, Any]:
        request = self._request
        if self._wait_seconds == 0:
            return self._document(*await self._search(Listener(request.feed, request.cursor)))
        async with request.feed.listening(request.caller.token_id, request.cursor) as listener:
            return self._document(*await self._first(listener))

    def _document(self, cursor: str, page: list[Change], caller: Caller) -> dict[str, Any]:
        found = _visible(page, caller)
        shown = found[: self._limit]
        is_cut = len(shown) < len(found)
        return {
            "changes": [each.to_json() for each in shown],
            "cursor": shown[-1].cursor if is_cut else cursor,
            "caught_up": not is_cut and len(page) < self._size,
        }

    async def _search(self, listener: Listener) -> tuple[str, list[Change], Caller]:
        """Return the first page of the log with a change that the token may see; the last one if there is none."""
        clock, caller = asyncio.get_running_loop().time, self._request.caller
        end = clock() + _SEARCH_SECONDS
        while True:
            page = await listener.read_log(self._size)
            if len(page) < self._size or clock() >= end or _visible(page, caller):
                return listener.cursor, page, caller

    async def _first(self, listener: Listener) -> tuple[str, list[Change], Caller]:
        """As :meth:`_search`, but wait for such a change."""
        clock, caller = asyncio.get_running_loop().time, self._request.caller
        end, has_waited = clock() + self._wait_seconds, False
        while True:
            page = await listener.read(self._size)
            if clock() >= end or _visible(page, caller):
                return listener.cursor, page, await self._request.checked() if has_waited else caller
            if not page:
                await listener.wait(end - clock())
                has_waited = True


class ChangeEvents(Response):
    """Answers with changes after a cursor as server-sent events, until the client leaves or its token ends."""

    media_type = "text/event-stream"

    def __init__(self, request: ChangeRequest) -> None:
        super().__init__()
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events. What ends them on our side ends the transfer whole: the client asks again, and is told why."""
        sender = AnswerSender(send, lambda: None)
        try:
            await _unless_left(self._send_events(sender), receive)
        except Cancelled:
            break_off(scope)
        except TraceError as error:
            if not sender.is_started:
                await error_response(refusal_of(error))(scope, receive, send)
                return
            await sender.pieces(b": the stream ends here; connect again\n\n")
            await sender.end()

    async def _send_events(self, sender: AnswerSender) -> None:
        request, clock = self._request, asyncio.get_running_loop().time
        async with request.feed.listening(request.caller.token_id, request.cursor) as listener:
            caller = request.caller
            page = await listener.read()
            await sender.start(_EVENT_HEADERS)
            await sender.pieces(_position(request.cursor))  # the page follows: who leaves before it resumes before it
            due = clock() + HEARTBEAT_SECONDS
            while True:
                if found := _visible(page, caller):
                    await sender.pieces(_events(found))
                if clock() >= due:
                    caller = await request.checked()
                    await sender.pieces(_position(listener.cursor))
                    due = clock() + HEARTBEAT_SECONDS
                if not page:
                    await listener.wait(max(0.0, due - clock()))
                page = await listener.read()


async def _unless_left(work: Coroutine[Any, Any, dict[str, Any] | None], receive: Receive) -> dict[str, Any] | None:
    """Return the result of some work; None if the client left before, which ends the work."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _visible(page: Iterable[Change], caller: Caller) -> list[Change]:
    return [each for each in page if caller.grants.allows(each.chain_id, each.dataset_key)]


def _events(found: list[Change]) -> bytes:
    return "".join(
        f"id: {each.cursor}\nevent: {each.kind}\ndata: {json.dumps(each.to_json())}\n\n" for each in found
    ).encode()


def _position(cursor: str) -> bytes:
    """Return a comment for proxies with the cursor to resume at: changes that the token may not see move it, too."""
    return f": heartbeat\nid: {cursor}\n\n".encode()
