"""Describes the devchain as a service of the stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from trace_dagster.config.settings import StackSettings
from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import Service
from trace_dagster.store.objects import reachable

SEED = 7


def devchain_service(port: int, stack: StackSettings, environment: Mapping[str, str], folder: Path) -> Service:
    """Describe the chain server. Its length and growth are settings; its content is always that of SEED.

    One that grows also serves ``dev_reorg``, which makes it fork.
    """
    interval = stack.devchain_block_interval_seconds
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
            str(stack.devchain_blocks),
            "--block-interval-seconds",
            str(interval),
            *(["--allow-reorgs"] if interval else []),
        ],
        environment=environment,
        healthy=lambda: reachable(f"http://{HOST}:{port}"),
        start_seconds=120.0,
        folder=folder,
    )
