"""Serves the application by HTTP until SIGINT or SIGTERM."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from trace_dagster.service.app import application
from trace_dagster.service.connections import BoundedConnection
from trace_dagster.service.parts import Parts

GRACE_SECONDS = 10
"""Requests under way may run on for so long when the service ends."""


IDLE_SECONDS = 75
"""A connection may be idle for so long: more than the 60 s after which the usual proxies close it, so that no request
meets a connection that the service closes at that moment.
"""


class QueryServer(uvicorn.Server):
    """Ends the streams that have no end of their own before it waits for the other requests."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the service."""
        self._app.state.lake.close()
        await super().shutdown(sockets)


def server(parts: Parts, host: str, port: int) -> QueryServer:
    """Return a server that listens on an address once it runs."""
    app = application(parts)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # uvicorn's texts repeat what clients send; the guard logs what fails
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return QueryServer(config, app)
