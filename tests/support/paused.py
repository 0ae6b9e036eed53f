"""Stops a thread before a named statement, so that a test decides what others do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from trace_dagster.registry.connection import Session

_TIMEOUT_SECONDS = 20
_CALLS = ("run", "one", "all", "many")


class Pause:
    """The first thread that comes to the statement waits there; others pass."""

    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._go_on = threading.Event()

    def reached(self) -> None:
        """Wait until a thread is before the statement."""
        assert self._reached.wait(_TIMEOUT_SECONDS), f"no thread came to statement {self._statement}"

    def go_on(self) -> None:
        """Let the thread go on."""
        self._go_on.set()

    def point(self, statement: str) -> None:
        """Wait if this is the statement, and no thread waited before."""
        with self._lock:
            if statement != self._statement or self._reached.is_set():
                return
            self._reached.set()
        assert self._go_on.wait(_TIMEOUT_SECONDS)


@contextmanager
def paused_before(statement: str) -> Iterator[Pause]:
    """Make the first thread that comes to a statement inside the block wait, at most until the block ends."""
    pause = Pause(statement)
    patches = [patch.object(Session, name, _wrapped(pause, name)) for name in _CALLS]
    for each in patches:
        each.start()
    try:
        yield pause
    finally:
        pause.go_on()
        for each in patches:
            each.stop()


def _wrapped(pause: Pause, name: str) -> Any:
    real = getattr(Session, name)

    def call(session: Any, statement: str, *args: Any, **values: Any) -> Any:
        pause.point(statement)
        return real(session, statement, *args, **values)

    return call
