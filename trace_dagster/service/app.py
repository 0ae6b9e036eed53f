"""The ASGI application of the query service: its routes, what stands before them, and the shape of its errors."""

from __future__ import annotations

from fastapi import FastAPI

from trace_dagster import __version__
from trace_dagster.service import lake_routes, login_routes, page_routes, query_routes
from trace_dagster.service.parts import Parts


def application(parts: Parts) -> FastAPI:
    """Return the application over these parts."""
    app = FastAPI(title="trace_dagster query service", version=__version__, docs_url=None, redoc_url=None)
    app.state.parts = parts
    for module in (query_routes, lake_routes, login_routes, page_routes):
        app.include_router(module.router)
    return app
