"""The response that runs a query and sends its rows."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from trace_dagster.errors import TraceError
from trace_dagster.service.answering import Answering
from trace_dagster.service.connections import break_off
from trace_dagster.service.errors import error_response, refusal_of
from trace_dagster.service.live_queries import LiveQuery
from trace_dagster.service.query_body import QueryBody
from trace_dagster.service.sending import AnswerSender


class QueryAnswer(Response):
    """Answers with the rows of a query, or with its error. An error after the first byte breaks the transfer."""

    def __init__(self, answering: Answering, live: LiveQuery, asked: QueryBody) -> None:
        super().__init__()
        self._answering = answering
        self._live = live
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the query. What it holds is free again when this returns."""
        sender = AnswerSender(send, self._live.require_wanted)
        try:
            with self._answering.live.added(self._live):
                await self._answering.answer(self._live, self._asked, receive, sender)
        except TraceError as error:
            if sender.is_started:
                break_off(scope)
                return
            await error_response(refusal_of(error), str(self._live.query_id))(scope, receive, send)
        except Exception:
            if sender.is_started:
                break_off(scope)
            raise
