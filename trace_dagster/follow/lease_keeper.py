"""Renews a follower's lease while its thread waits for a slow answer, so that no other process takes the lease over."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from trace_dagster.errors import TraceError
from trace_dagster.registry.hot import FollowerLease, HotStore

LONGEST_STEP_SECONDS = 120.0
"""How long the lease is renewed for a thread that does not come back: several answers of the slowest endpoint."""


class ChainLeaseKeeper:
    """Renews one lease at a time, in a thread of its own. One thread at a time uses it.

    A lease that was taken over is not renewed; its holder learns of it when it writes.
    """

    def __init__(self, store: HotStore, lease_seconds: float) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._lease: FollowerLease | None = None
        self._until = float("-inf")
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, lease: FollowerLease) -> None:
        """Renew this lease from now on, until ``stop``, or until no call has come for LONGEST_STEP_SECONDS."""
        self._lease, self._until = lease, time.monotonic() + LONGEST_STEP_SECONDS
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"lease-{lease.chain_id}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Renew no lease from now on."""
        self._lease = None

    def close(self) -> None:
        """End the thread."""
        self.stop()
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._lease_seconds / 3):
            lease = self._lease
            if lease is not None and time.monotonic() < self._until:
                with suppress(TraceError):  # the holder's own calls tell it
                    self._store.renew(lease, self._lease_seconds)
