"""Describes the RPC gateway as a service of the stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import Service
from trace_dagster.store.objects import reachable

URL_VARIABLE = "TRACE_RPC_GATEWAY_URL"


def gateway_service(port: int, token: str, environment: Mapping[str, str], folder: Path) -> Service:
    """Describe the gateway that all runs of this machine share: one budget, one cache."""
    return Service(
        name="gateway",
        command=[sys.executable, "-m", "trace_dagster.gateway", "--port", str(port)],
        environment={**environment, "TRACE_GATEWAY_TOKEN": token},
        healthy=lambda: reachable(f"http://{HOST}:{port}"),
        folder=folder,
    )
