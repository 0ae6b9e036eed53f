"""Callbacks for the end of a step: what an op opened is closed even if its output never reaches the IO manager.

Dagster has no such hook. The thread executor opens a scope around each step; under another executor callbacks are not
kept, and the run's resources close what is left when the run ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

_scope = threading.local()
"""``callbacks`` of the step that runs in this thread."""


@contextmanager
def step_scope() -> Iterator[None]:
    """Run the callbacks that were registered inside the block when it ends, the newest first."""
    with ExitStack() as callbacks:
        _scope.callbacks = callbacks
        try:
            yield
        finally:
            del _scope.callbacks


def at_step_end(callback: Callable[[], None]) -> bool:
    """Register a callback for the end of this thread's step. Return False if no step scope is open."""
    callbacks: ExitStack | None = getattr(_scope, "callbacks", None)
    if callbacks is None:
        return False
    callbacks.callback(callback)
    return True
