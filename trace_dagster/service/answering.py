"""Answers queries: a place, the log, the rows, and one outcome for each of them, however it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from starlette.types import Receive

from trace_dagster.errors import (
    Cancelled,
    Corrupt,
    InvalidInput,
    Refused,
    TooLate,
    TooMany,
    TraceError,
    Unavailable,
    WrongSetup,
)
from trace_dagster.messages.logs import component_log
from trace_dagster.query.opening import LakeStream
from trace_dagster.query.protocol import DEFAULT_ROWS
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.render import to_json
from trace_dagster.registry.query_log import Outcome, QueryLog
from trace_dagster.registry.tokens import Tokens
from trace_dagster.service.live_queries import LiveQueries, LiveQuery
from trace_dagster.service.parts import Parts
from trace_dagster.service.per_minute import PerMinute
from trace_dagster.service.pieces import PiecesAhead
from trace_dagster.service.places import Places
from trace_dagster.service.query_body import MEDIA_TYPES, QueryBody
from trace_dagster.service.sending import AnswerSender

_log = component_log("service")

_SPARE_THREADS = 8
"""Threads for what is done around queries: a query that runs needs one at a time."""
UNPLACED_PER_MINUTE = 60
"""Queries without a place that are logged in a minute: callers who do not wait must not fill the registry's disk."""
REVOKED_SECONDS = 10.0
"""So often the service looks whether tokens of running queries are revoked: a stream may run for an hour."""
_MARGIN_SECONDS = 65
"""The log says that a query can run for this much longer than its deadline, which counts from the moment at which its
process has started: that may take a minute, and sweep keeps the files of a query until the log's deadline. Its client
has as long to take the last bytes.
"""
_OUTCOMES: dict[type[BaseException], Outcome] = {
    InvalidInput: "refused",
    Refused: "refused",
    TooLate: "timeout",
    TooMany: "busy",
    Cancelled: "cancelled",
    asyncio.CancelledError: "cancelled",
    Unavailable: "failed",
    WrongSetup: "failed",
    Corrupt: "failed",
}
_Result = TypeVar("_Result")


class Answering:
    """Runs the queries of all requests. Close it when done."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.places = Places(parts.settings.running, parts.settings.waiting)
        self.live = LiveQueries()
        self._query_log = QueryLog(parts.database)
        self._unplaced = PerMinute(UNPLACED_PER_MINUTE)
        self._threads = ThreadPoolExecutor(parts.settings.running + _SPARE_THREADS, "query")
        parts.metrics.watch("running", "Queries that run.", lambda: self.places.running)
        parts.metrics.watch("waiting", "Queries that wait for a place.", lambda: self.places.waiting)

    def close(self) -> None:
        """End the threads when they are done."""
        self._threads.shutdown()

    async def end_revoked(self) -> None:
        """End the queries of tokens that are revoked meanwhile. Does not return."""
        tokens = Tokens(self._parts.database)
        while True:
            await asyncio.sleep(REVOKED_SECONDS)
            if callers := self.live.callers():
                with suppress(TraceError):  # the registry is away: look again later
                    found = asyncio.get_running_loop().run_in_executor(self._threads, tokens.revoked, callers)
                    self.live.cancel_revoked(await found)

    async def answer(self, live: LiveQuery, asked: QueryBody, receive: Receive, sender: AnswerSender) -> None:
        """Run a query and send its answer. Raises the error of the query, before or after the answer has begun."""
        outcome: Outcome = "failed"
        try:
            async with _watched(live, receive, sender), self.places.place(live.caller, live.waiter):
                await self._begin(live, sender)
                outcome = await (self._json if live.form == "json" else self._stream)(live, asked, sender)
        except BaseException as error:
            outcome = _outcome(error, sender.is_started)
            if isinstance(error, Cancelled):
                live.require_wanted()  # a query's process does not know why it was ended
            raise
        finally:
            await self._end(live, outcome, sender.sent_bytes)

    async def _json(self, live: LiveQuery, asked: QueryBody, sender: AnswerSender) -> Outcome:
        query = partial(self._parts.opening.query, self._parts.runner, asked.sql, asked.limit or DEFAULT_ROWS)
        result = await self._in_thread(live, query, asked.parameters, asked.cut(), **self._known(live))
        body = await self._in_thread(live, _encoded, result, str(live.query_id))
        self._parts.metrics.first_byte(live.form, live.seconds)
        live.sends(len(result.rows))
        await sender.whole(body, _headers(live))
        return "truncated" if result.truncated else "done"

    async def _stream(self, live: LiveQuery, asked: QueryBody, sender: AnswerSender) -> Outcome:
        assert live.form != "json"
        opening, runner = self._parts.opening, self._parts.runner
        opened = opening.stream(
            runner, asked.sql, live.form, asked.parameters, asked.cut(), limit=asked.limit, **self._known(live)
        )
        held = ExitStack()
        try:
            stream = await self._in_thread(live, held.enter_context, opened)
            send_end = await self._send_pieces(live, stream, sender)
        finally:
            await self._in_thread(live, held.close)
        await send_end()  # the query's process has ended: who asks again at once finds its place free
        return "done"

    async def _send_pieces(
        self, live: LiveQuery, stream: LakeStream, sender: AnswerSender
    ) -> Callable[[], Awaitable[None]]:
        """Send all bytes, or none if they are few; return what sends the end of the answer."""
        pieces = iter(stream)
        ahead = PiecesAhead(lambda: self._in_thread(live, next, pieces, None))
        try:
            head, is_whole = await ahead.head()
            self._parts.metrics.first_byte(live.form, live.seconds)
            live.sends(stream.rows)
            headers = _headers(live) | {"Trace-Snapshot": stream.snapshot.compact()}
            if is_whole:
                return partial(sender.whole, head, headers)
            await sender.start(headers)
            await sender.pieces(head)
            while (piece := await ahead.next()) is not None:
                live.rows = stream.rows
                await sender.pieces(piece)
        except BaseException:
            live.cancel()
            raise
        finally:
            await ahead.close()
        return sender.end

    def _known(self, live: LiveQuery) -> dict[str, Any]:
        seen = partial(self._query_log.read, live.query_id)
        return {"grants": live.caller.grants, "cancellation": live.cancellation, "seen": seen}

    async def _begin(self, live: LiveQuery, sender: AnswerSender) -> None:
        seconds = self._parts.settings.seconds if live.form == "json" else self._parts.settings.stream_seconds
        seconds += _MARGIN_SECONDS
        begin = partial(self._query_log.begin, live.query_id, live.caller, live.form, seconds)
        await self._in_thread(live, begin)
        live.state, live.is_logged = "running", True
        sender.until = asyncio.get_running_loop().time() + seconds

    async def _end(self, live: LiveQuery, outcome: Outcome, sent_bytes: int) -> None:
        """Complete the log and the numbers. Raises nothing: the answer was sent."""
        self._parts.metrics.ended(outcome, live.form, live.seconds, live.rows, sent_bytes)
        if live.is_logged:
            end = partial(self._query_log.end, live.query_id, outcome, live.rows, sent_bytes)
        elif outcome in {"busy", "cancelled"} and self._unplaced.count():
            end = partial(self._log_unplaced, live, outcome)
        else:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, end)
        except TraceError as error:
            _log.warning("end_not_logged", query_id=live.query_id, reason=type(error).__name__)

    def _log_unplaced(self, live: LiveQuery, outcome: Outcome) -> None:
        """Log a query that got no place."""
        self._query_log.begin(live.query_id, live.caller, live.form, 0)
        self._query_log.end(live.query_id, outcome)

    async def _in_thread(
        self, live: LiveQuery, call: Callable[..., _Result], *arguments: object, **named: object
    ) -> _Result:
        """Return what a call in another thread returns. If this task is cancelled, the query is, and the call ends."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments, **named))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            live.cancel()
            with suppress(TraceError):
                await future
            raise


@asynccontextmanager
async def _watched(live: LiveQuery, receive: Receive, sender: AnswerSender) -> AsyncIterator[None]:
    """Cancel the query if its client leaves during the block. The body of the request was read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not sender.is_whole:  # receive also ends when the answer has
            live.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def _outcome(error: BaseException, is_started: bool) -> Outcome:
    for kind in type(error).__mro__:
        if found := _OUTCOMES.get(kind):
            return "broken" if is_started and found in {"failed", "refused"} else found
    return "broken" if is_started else "failed"


def _encoded(result: QueryResult, query_id: str) -> bytes:
    return json.dumps({"query_id": query_id, **to_json(result)}, separators=(",", ":"), allow_nan=False).encode()


def _headers(live: LiveQuery) -> dict[str, str]:
    """Return the headers of the rows of a query."""
    found = {"Content-Type": MEDIA_TYPES[live.form], "Trace-Query-Id": str(live.query_id)}
    if live.form in {"csv", "parquet"}:
        found["Content-Disposition"] = f'attachment; filename="query.{live.form}"'
    return found
