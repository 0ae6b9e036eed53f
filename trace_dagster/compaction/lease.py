"""Renews the lease of a compaction while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from trace_dagster.errors import LeaseLost, Unavailable
from trace_dagster.registry.layouts import Layouts, WindowLease

_RECORD_SECONDS = 1.0
"""Bytes that were written longer ago count, whatever ends the process."""


class LeaseKeeper:
    """Renews a lease each third of its lifetime inside a ``with`` block, and records the bytes written so far."""

    def __init__(self, layouts: Layouts, lease: WindowLease) -> None:
        self._layouts = layouts
        self._lease = lease
        self._lost: LeaseLost | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace-compaction-lease", daemon=True)
        self.written_bytes: Callable[[], int] = lambda: 0

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost if another compaction holds the blocks now."""
        if self._lost is not None:
            raise self._lost

    def _run(self) -> None:
        ttl, renewed, recorded = self._layouts.lease_ttl_seconds, time.monotonic(), 0
        while not self._stopped.wait(min(_RECORD_SECONDS, ttl / 3)):
            written = self.written_bytes()
            if written == recorded and time.monotonic() - renewed < ttl / 3:
                continue
            try:
                self._layouts.renew(self._lease, written)
                renewed, recorded = time.monotonic(), written
            except LeaseLost as error:
                self._lost = error
                return
            except Unavailable:
                continue  # a lease outlives two renewals that failed
