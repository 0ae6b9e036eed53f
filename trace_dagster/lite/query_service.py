"""Describes the query service as a service of the stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import Service
from trace_dagster.store.objects import reachable

PORT_VARIABLE = "TRACE_PORT_QUERY"
URL_VARIABLE = "TRACE_QUERY_URL"


def query_service(port: int, environment: Mapping[str, str], folder: Path) -> Service:
    """Describe the query service. After a restart it has the same port, and the same tokens open it."""
    return Service(
        name="queries",
        command=[sys.executable, "-m", "trace_dagster.cli.main", "serve", "--host", HOST, "--port", str(port)],
        environment=environment,
        healthy=lambda: reachable(url_of(port)),
        folder=folder,
    )


def url_of(port: int) -> str:
    """Return the service's URL on this machine."""
    return f"http://{HOST}:{port}"
