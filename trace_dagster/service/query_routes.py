"""Routes that run queries."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from trace_dagster.registry.tokens import Caller
from trace_dagster.service.answering import Answering
from trace_dagster.service.callers import ApiCaller
from trace_dagster.service.errors import documented
from trace_dagster.service.live_queries import LiveQuery, QueryState
from trace_dagster.service.places import Waiter
from trace_dagster.service.query_answer import QueryAnswer
from trace_dagster.service.query_body import MEDIA_TYPES, Format, QueryBody, read_query

router = APIRouter(tags=["queries"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}


class QueryColumn(BaseModel):
    """A column of an answer."""

    name: str
    type: str


class QueryRows(BaseModel):
    """The answer to a query as JSON."""

    query_id: UUID
    columns: list[QueryColumn]
    rows: list[list[Any]]
    truncated: bool
    snapshot: dict[str, Any] | None = None


class LiveQueryState(BaseModel):
    """How far a query is."""

    model_config = ConfigDict(json_schema_extra={"description": "A query that waits or runs."})

    query_id: UUID
    state: QueryState
    position: int | None
    """Its place in the queue, from 1 on; null if it does not wait."""
    format: Format
    seconds: float
    """Since the request."""
    rows: int


@router.post(
    "/v1/query",
    response_class=Response,
    responses={
        200: {
            "description": "The rows. A stream that fails midway ends as a broken transfer.",
            "model": QueryRows,
            "content": {kind.partition(";")[0]: _BINARY for form, kind in MEDIA_TYPES.items() if form != "json"},
        },
        **documented(400, 401, 403, 408, 409, 413, 422, 429, 503, 505),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": QueryBody.model_json_schema()}}}
    },
)
async def run_query(
    request: Request, caller: ApiCaller, trace_query_id: Annotated[UUID | None, Header()] = None
) -> QueryAnswer:
    """Run one SELECT and answer with its rows. The header Trace-Query-Id chooses the id of the query."""
    asked, form = await read_query(request)
    return QueryAnswer(
        answering_of(request), LiveQuery(trace_query_id or uuid4(), caller, form, Waiter(caller.token_id)), asked
    )


@router.get("/v1/queries/{query_id}", responses=documented(401, 403, 404, 422, 503))
async def query_state(request: Request, caller: ApiCaller, query_id: UUID) -> LiveQueryState:
    """Return how far a query of the token is. One that has ended is unknown."""
    return _state(answering_of(request), caller, query_id)


@router.delete("/v1/queries/{query_id}", status_code=202, responses=documented(401, 403, 404, 422, 503))
async def cancel_query(request: Request, caller: ApiCaller, query_id: UUID) -> LiveQueryState:
    """End a query of the token. Its own request is answered with 409, or its transfer is broken off."""
    answering = answering_of(request)
    answering.live.of(caller, query_id).cancel()
    return _state(answering, caller, query_id)


def answering_of(request: Request) -> Answering:
    """Return what runs the queries of the service that a request came to."""
    found: Answering = request.app.state.answering
    return found


def _state(answering: Answering, caller: Caller, query_id: UUID) -> LiveQueryState:
    live = answering.live.of(caller, query_id)
    return LiveQueryState(
        query_id=query_id,
        state=live.state,
        position=answering.places.position(live.waiter),
        format=live.form,
        seconds=round(live.seconds, 3),
        rows=live.rows,
    )
