"""Serves the application by HTTP until SIGINT or SIGTERM."""

from __future__ import annotations

import uvicorn

from trace_dagster.service.app import application
from trace_dagster.service.connections import BoundedConnection
from trace_dagster.service.parts import Parts

GRACE_SECONDS = 10
"""Requests under way may run on for so long when the service ends."""


def server(parts: Parts, host: str, port: int) -> uvicorn.Server:
    """Return a server that listens on an address once it runs."""
    config = uvicorn.Config(
        application(parts),
        host=host,
        port=port,
        http=BoundedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # uvicorn's texts repeat what clients send; the guard logs what fails
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def serve(parts: Parts, host: str, port: int) -> None:
    """Serve on an address until a signal arrives; requests under way may end."""
    server(parts, host, port).run()
