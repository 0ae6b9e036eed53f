"""Describes the tip follower as a service of the stack."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from trace_dagster.lite.processes import Service

HEARTBEAT_FILE = "follower.heartbeat"
FRESH_SECONDS = 10.0
"""Age up to which a heartbeat counts; the follower writes one each second."""


def follower_service(environment: Mapping[str, str], home: Path) -> Service:
    """Describe the follower. It is healthy while its loop writes heartbeats, whether or not a job follows a chain."""
    heartbeat = home / HEARTBEAT_FILE
    heartbeat.unlink(missing_ok=True)
    return Service(
        name="follower",
        command=[sys.executable, "-m", "trace_dagster.cli.main", "follow", "--heartbeat", str(heartbeat)],
        environment=environment,
        healthy=lambda: is_fresh(heartbeat),
        folder=home,
    )


def is_fresh(heartbeat: Path) -> bool:
    """Return whether a heartbeat was written lately."""
    try:
        return time.time() - heartbeat.stat().st_mtime < FRESH_SECONDS
    except FileNotFoundError:
        return False
