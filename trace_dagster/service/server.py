"""Serves the application by HTTP until SIGINT or SIGTERM."""

from __future__ import annotations

import uvicorn

from trace_dagster.service.app import application
from trace_dagster.service.parts import Parts


def serve(parts: Parts, host: str, port: int) -> None:
    """Serve on an address until a signal arrives; requests under way may end."""
    uvicorn.run(application(parts), host=host, port=port, log_config=None, server_header=False)
