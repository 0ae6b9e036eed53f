"""Answers queries: a place, the log, the rows, and one outcome for each of them, however it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from starlette.types import Receive

from trace_dagster.errors import Cancelled, Corrupt, InvalidInput, Refused, TooLate, TooMany, TraceError, Unavailable
from trace_dagster.messages.logs import component_log
from trace_dagster.query.protocol import DEFAULT_ROWS
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.render import to_json
from trace_dagster.registry.query_log import Outcome, QueryLog
from trace_dagster.service.live_queries import LiveQueries, LiveQuery
from trace_dagster.service.parts import Parts
from trace_dagster.service.places import Places, left
from trace_dagster.service.query_body import MEDIA_TYPES, QueryBody
from trace_dagster.service.sending import AnswerSender

_log = component_log("service")

_SPARE_THREADS = 8
"""Threads for what is done around queries: a query that runs needs one at a time."""
_MARGIN_SECONDS = 5.0
"""A query's process is ended at its deadline; the log says that it can run for this much longer."""
_OUTCOMES: dict[type[BaseException], Outcome] = {
    InvalidInput: "refused",
    Refused: "refused",
    TooLate: "timeout",
    TooMany: "busy",
    Cancelled: "cancelled",
    asyncio.CancelledError: "cancelled",
    Unavailable: "failed",
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
        self._threads = ThreadPoolExecutor(parts.settings.running + _SPARE_THREADS, "query")
        parts.metrics.watch("running", "Queries that run.", lambda: self.places.running)
        parts.metrics.watch("waiting", "Queries that wait for a place.", lambda: self.places.waiting)

    def close(self) -> None:
        """End the threads when they are done."""
        self._threads.shutdown()

    async def answer(self, live: LiveQuery, asked: QueryBody, receive: Receive, sender: AnswerSender) -> None:
        """Run a query and send its answer. Raises the error of the query, before or after the answer has begun."""
        outcome: Outcome = "failed"
        try:
            async with _watched(live, receive), self.places.place(live.caller, live.waiter):
                await self._begin(live)
                outcome = await self._json(live, asked, sender)
                if live.cancellation.is_asked:
                    raise left()
        except BaseException as error:
            outcome = _outcome(error, sender.is_started)
            raise
        finally:
            await self._end(live, outcome, sender.sent_bytes)

    async def _json(self, live: LiveQuery, asked: QueryBody, sender: AnswerSender) -> Outcome:
        result = await self._in_thread(live, self._result, live, asked)
        body = await self._in_thread(live, _encoded, result, str(live.query_id))
        self._parts.metrics.first_byte(live.form, live.seconds)
        live.state, live.rows = "sending", len(result.rows)
        await sender.whole(body, {"Content-Type": MEDIA_TYPES["json"], "Trace-Query-Id": str(live.query_id)})
        return "truncated" if result.truncated else "done"

    def _result(self, live: LiveQuery, asked: QueryBody) -> QueryResult:
        return self._parts.opening.query(
            self._parts.runner, asked.sql, asked.limit or DEFAULT_ROWS, asked.parameters, asked.cut()
        )

    async def _begin(self, live: LiveQuery) -> None:
        seconds = self._parts.settings.seconds if live.form == "json" else self._parts.settings.stream_seconds
        begin = partial(self._query_log.begin, live.query_id, live.caller, live.form, seconds + _MARGIN_SECONDS)
        await self._in_thread(live, begin)
        live.state, live.is_logged = "running", True

    async def _end(self, live: LiveQuery, outcome: Outcome, sent_bytes: int) -> None:
        """Complete the log and the numbers. Raises nothing: the answer was sent."""
        self._parts.metrics.ended(outcome, live.form, live.seconds, live.rows, sent_bytes)
        if not live.is_logged:
            return
        end = partial(self._query_log.end, live.query_id, outcome, live.rows, sent_bytes)
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, end)
        except TraceError as error:
            _log.warning("end_not_logged", query_id=live.query_id, reason=type(error).__name__)

    async def _in_thread(self, live: LiveQuery, call: Callable[..., _Result], *arguments: object) -> _Result:
        """Return what a call in another thread returns. If this task is cancelled, the query is, and the call ends."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            live.cancel()
            with suppress(TraceError):
                await future
            raise


@asynccontextmanager
async def _watched(live: LiveQuery, receive: Receive) -> AsyncIterator[None]:
    """Cancel the query if its client leaves during the block. The body of the request was read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
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
