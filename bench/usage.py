"""CPU time of a stack's processes by part, sampled during a measurement."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from trace_dagster.lite.processes import STACK_VARIABLE

RUNS, POSTGRES, GATEWAY = "runs and code server", "postgres", "gateway"
IDLE_SECONDS = 60.0
_PARTS = {
    "engine.worker": "engine",
    "trace_dagster.gateway": GATEWAY,
    "postgres": POSTGRES,
    "weed": "s3",
    "devchain": "devchain",
    "_daemon": "daemon",
    "webserver": "web server",
}
"""By a mark in the command line."""


_PASSING = ("engine.worker", "spawn_main")
"""Marks of processes that end with a run."""


@dataclass(frozen=True, slots=True)
class Look:
    """CPU seconds of each part since its start, at one time (seconds since the epoch)."""

    at: float
    cpu: dict[str, float]

    @property
    def total(self) -> float:
        """CPU seconds of all parts."""
        return sum(self.cpu.values())


class Usage:
    """Samples a stack's processes every ``interval_seconds`` inside its block."""

    def __init__(self, stack_id: str, interval_seconds: float) -> None:
        self._stack_id = stack_id
        self._interval_seconds = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="usage", daemon=True)
        self._used: dict[psutil.Process, tuple[str, float]] = {}
        self.looks: list[Look] = []

    def __enter__(self) -> Usage:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def cpu(self) -> dict[str, float]:
        """CPU seconds by part, from the first sample to the last."""
        first, last = self.looks[0].cpu, self.looks[-1].cpu
        return {part: round(last[part] - first.get(part, 0.0), 2) for part in sorted(last)}

    def total_at(self, moment: float) -> float:
        """Return CPU seconds of all parts at a time, interpolated between two samples."""
        after = min(max(1, bisect_left(self.looks, moment, key=lambda look: look.at)), len(self.looks) - 1)
        one, two = self.looks[after - 1], self.looks[after]
        share = min(1.0, max(0.0, (moment - one.at) / (two.at - one.at)))
        return one.total + share * (two.total - one.total)

    def _watch(self) -> None:
        while not self._over.wait(self._interval_seconds):
            self._look()

    def _look(self) -> None:
        """Sample what each process has used itself, including those that ended: their parents count them at other
        times.

        The CPU time of a process after its last sample is lost. Backends of Postgres start and end more often than
        that; they are counted with their parent when they have ended.
        """
        found: defaultdict[str, float] = defaultdict(float)
        for process, command in _processes(self._stack_id):
            with suppress(psutil.Error):
                part, times = part_of(command), process.cpu_times()
                if part == POSTGRES:
                    found[part] += sum(times[:4])
                else:
                    self._used[process] = part, sum(times[:2])
        for part, seconds in self._used.values():
            found[part] += seconds
        self.looks.append(Look(time.time(), dict(found)))


def await_idle(stack_id: str) -> None:
    """Wait until the stack's last run has ended, so that its CPU time is not counted with the next measurement.

    Raises RuntimeError if it does not end.
    """
    deadline = time.monotonic() + IDLE_SECONDS
    while any(mark in command for _, command in _processes(stack_id) for mark in _PASSING):
        if time.monotonic() > deadline:
            raise RuntimeError("a run of what was measured before does not end")
        time.sleep(0.2)


def _processes(stack_id: str) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the stack's processes and their command lines; a process that ends meanwhile is left out.

    A backend of Postgres overwrites its environment with its title, so it is recognised by its parent.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(STACK_VARIABLE) == stack_id:
                command = " ".join(process.cmdline())
                yield process, command
                if part_of(command) == POSTGRES:
                    yield from ((backend, POSTGRES) for backend in process.children())


def part_of(command: str) -> str:
    """Return the part of a stack that a command line belongs to."""
    return next((part for mark, part in _PARTS.items() if mark in command), RUNS)
