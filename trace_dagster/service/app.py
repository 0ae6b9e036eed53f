"""The ASGI application of the query service: its routes, what stands before them, and the shape of its errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from trace_dagster import __version__
from trace_dagster.errors import TraceError
from trace_dagster.service import lake_routes, login_routes, page_routes, query_routes
from trace_dagster.service.answering import Answering
from trace_dagster.service.bodies import wrong_member
from trace_dagster.service.callers import note_denial
from trace_dagster.service.doors import SameOrigin
from trace_dagster.service.errors import HttpRefusal, error_response, refusal_of
from trace_dagster.service.guard import Guard
from trace_dagster.service.lake_answers import LakeAnswers
from trace_dagster.service.parts import Parts

_ROUTERS = tuple(module.router for module in (query_routes, lake_routes, login_routes, page_routes))


def application(parts: Parts) -> FastAPI:
    """Return the application over these parts."""
    app = FastAPI(
        title="trace_dagster query service",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.parts = parts
    app.state.answering = Answering(parts)
    app.state.lake = LakeAnswers(parts)
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(TraceError, _trace_error)
    app.add_exception_handler(HttpRefusal, _refusal)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _wrong_form)
    app.add_middleware(
        SameOrigin,
        hosts=[name for name in parts.settings.hosts.split(",") if name.strip()],
        denied=lambda request: run_in_threadpool(note_denial, parts, request, "browser"),
    )
    app.add_middleware(Guard)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    looking = asyncio.create_task(app.state.answering.end_revoked())
    yield
    looking.cancel()
    app.state.lake.close()
    app.state.answering.close()


def _trace_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, TraceError)
    return error_response(refusal_of(error))


def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HttpRefusal)
    return error_response(error)


def _wrong_form(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message = f"the request has a wrong form: {wrong_member(list(error.errors()))}"
    return error_response(HttpRefusal(422, "wrong_form", message))


def _http_exception(request: Request, error: Exception) -> Response:
    """Answer for a path that does not exist, or does not take this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(
            HttpRefusal(404, "not_found", "there is nothing at this path: /openapi.json lists all paths")
        )
    if error.status_code == 405:
        methods = ", ".join(_methods(request))
        message = f"this path does not accept {request.method[:20]}: use {methods}"
        return error_response(HttpRefusal(405, "wrong_method", message, {"Allow": methods}))
    return error_response(HttpRefusal(error.status_code, "refused", str(error.detail), error.headers))


def _methods(request: Request) -> list[str]:
    """Return the methods that a path takes."""
    found: set[str] = set()
    for route in (*request.app.routes, *(route for router in _ROUTERS for route in router.routes)):
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)
