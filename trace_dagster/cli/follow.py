"""The command ``follow``: the tip follower as a process of its own."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from trace_dagster.cli.commands import opened
from trace_dagster.config.settings import Settings

Say = Callable[[str], None]

HEARTBEAT_SECONDS = 1.0
"""Shortest time between two touches of the heartbeat file."""


class HeartbeatFile:
    """A file that is touched while a process works, for health checks that must be cheap. Removed at the end."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._touched_at = float("-inf")
        self.remove()

    def beat(self) -> None:
        """Touch the file, at most once a second."""
        now = time.monotonic()
        if self._path is not None and now - self._touched_at >= HEARTBEAT_SECONDS:
            self._path.touch(mode=0o600)
            self._touched_at = now

    def remove(self) -> None:
        """Remove the file: the process does not work (any more)."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def run_follower(settings: Settings, say: Say, chains: Collection[int], heartbeat: Path | None) -> None:
    """Follow the head of these chains, or of every chain that a job follows, until SIGINT or SIGTERM.

    ``heartbeat`` is a file that is touched once a second while the follower works.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    file = HeartbeatFile(heartbeat)
    try:
        with opened(settings) as runtime:
            runtime.followers.run(stop, beat=file.beat, chains=chains)
    finally:
        file.remove()
    say("stopped")
