"""The command ``follow``: the tip follower as a process of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from trace_dagster.cli.commands import opened
from trace_dagster.config.settings import Settings
from trace_dagster.errors import Unavailable

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

    ``heartbeat`` is a file that is touched once a second while the follower works. If a chain's thread is stuck, the
    process ends at once with an exit code, so that its supervisor starts it again.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    file = HeartbeatFile(heartbeat)

    def beat(stuck: Sequence[int]) -> None:
        if stuck:
            _end_at_once(file, say, stuck)
        file.beat()

    try:
        with opened(settings) as runtime:
            runtime.followers.run(stop, beat=beat, chains=chains)
    finally:
        file.remove()
    say("stopped")


def _end_at_once(file: HeartbeatFile, say: Say, stuck: Sequence[int]) -> NoReturn:
    """End the process without waiting for its threads. The leases lapse."""
    named = ", ".join(map(str, stuck))
    error = Unavailable(f"the thread of chain {named} is stuck: the follower ends, so that it is started again")
    say(f"error: {error}")
    file.remove()
    os._exit(error.exit_code)
