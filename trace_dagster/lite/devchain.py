"""The devchain as a service of the stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from trace_dagster.errors import InvalidInput
from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import Service
from trace_dagster.store.objects import reachable

DEFAULT_BLOCKS = 4100
"""A little more than examples/devchain.yaml asks for, so that all of it is final."""

SEED = 7


def devchain_service(port: int, environment: Mapping[str, str], folder: Path) -> Service:
    """The chain server; its length and growth are settings, its content is not."""
    blocks = _whole(environment, "TRACE_DEVCHAIN_BLOCKS", DEFAULT_BLOCKS)
    interval = _whole(environment, "TRACE_DEVCHAIN_BLOCK_INTERVAL_SECONDS", 0)
    return Service(
        name="devchain",
        command=[
            sys.executable,
            "-m",
            "trace_dagster.devchain",
            "--port",
            str(port),
            "--seed",
            str(SEED),
            "--blocks",
            str(blocks),
            "--block-interval-seconds",
            str(interval),
        ],
        environment=environment,
        healthy=lambda: reachable(f"http://{HOST}:{port}"),
        start_seconds=120.0,
        folder=folder,
    )


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    written = environment.get(name, "").strip()
    if not written:
        return default
    if not written.isdecimal() or int(written) > 1_000_000:
        raise InvalidInput(f"{name} must be a whole number up to 1000000", value=repr(written[:20]))
    return int(written)
