"""Routes that describe the lake: datasets, files, changes, health, metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.changes import OLDEST
from trace_dagster.service.callers import ApiCaller, KnownCaller, caller_of
from trace_dagster.service.change_feed import PAGE
from trace_dagster.service.change_stream import ChangeEvents, ChangePage, ChangeRequest
from trace_dagster.service.errors import HttpRefusal, documented
from trace_dagster.service.lake_answers import LakeAnswers
from trace_dagster.service.lake_models import ChangesEntry, FilesEntry, HealthEntry, LakeEntry, OneDataset
from trace_dagster.service.metrics import CONTENT_TYPE
from trace_dagster.service.parts import parts_of

router = APIRouter(tags=["lake"])

NOW = "now"
"""Stands for the cursor of this moment."""

_Name = Annotated[str, Path(max_length=100, description="chain_143.logs, or logs if one chain alone has it")]
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}


def _answers(request: Request) -> LakeAnswers:
    found: LakeAnswers = request.app.state.lake
    return found


@router.get("/v1/datasets", response_model=LakeEntry, responses=documented(401, 403, 422, 503))
def datasets(request: Request, caller: ApiCaller) -> dict[str, Any]:
    """Return every dataset that the token may see, and the heads of their chains, as of one moment."""
    return _answers(request).lake(caller.grants)


@router.get("/v1/datasets/{key}", response_model=OneDataset, responses=documented(401, 403, 404, 422, 503))
def dataset(request: Request, caller: ApiCaller, key: _Name) -> dict[str, Any]:
    """Return one dataset and its chain, as of one moment."""
    return _answers(request).dataset(caller.grants, key)


@router.get(
    "/v1/datasets/{key}/files",
    response_class=Response,
    responses={
        200: {"model": FilesEntry, "description": "A JSON object with a file on each line."},
        **documented(400, 401, 403, 404, 422, 429, 503),
    },
)
async def dataset_files(
    request: Request,
    caller: ApiCaller,
    key: _Name,
    from_block: Annotated[int, Query(ge=0, le=MAX_BLOCK)] = 0,
    to_block: Annotated[int, Query(ge=0, le=MAX_BLOCK, description="exclusive")] = MAX_BLOCK,
) -> Response:
    """Return the files with visible rows of some blocks, as of one moment. Rows of hot blocks are in no file."""
    if from_block >= to_block:
        raise InvalidInput("from_block must be less than to_block, which is exclusive")
    return await _answers(request).files(caller.grants, key, BlockRange(from_block, to_block))


@router.get(
    "/v1/changes",
    response_class=Response,
    responses={
        200: {
            "model": ChangesEntry,
            "content": _EVENTS,
            "description": "A page of changes; server-sent events with `Accept: text/event-stream`.",
        },
        **documented(400, 401, 403, 410, 422, 429, 503),
    },
)
async def changes(
    request: Request,
    caller: ApiCaller,
    after: Annotated[str, Query(max_length=100, description="a cursor, 0 for the oldest, or now")] = OLDEST,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds to wait for the first change")] = 0,
    accept: Annotated[str, Header(max_length=1000)] = "",
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """Return changes of the lake after a cursor, in the order in which a reader may rely on them."""
    feed = _answers(request).feed
    is_stream = "text/event-stream" in accept.lower()
    cursor = (is_stream and last_event_id) or after
    asked = ChangeRequest(feed, caller, lambda: caller_of(request), await feed.now() if cursor == NOW else cursor)
    return ChangeEvents(asked) if is_stream else ChangePage(asked, limit, wait)


@router.get("/healthz", response_model=HealthEntry, responses={503: {"model": HealthEntry}, **documented(403)})
async def health(request: Request) -> Response:
    """Return whether the service can answer, and else which part of it is away."""
    away = await _answers(request).health.away()
    status = "unavailable" if away else "ok"
    return JSONResponse({"status": status, "away": away}, 503 if away else 200)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(401, 403, 503)},
)
def metrics(request: Request, caller: KnownCaller) -> Response:
    """Return the service's numbers for Prometheus. They tell of all datasets, so the token must have no limit."""
    found = parts_of(request).metrics
    if caller.grants.patterns is not None:
        found.denied("rights")
        raise HttpRefusal(403, "limited_token", "the metrics tell of every dataset: use a token without --dataset")
    return Response(found.exposition(), media_type=CONTENT_TYPE)
