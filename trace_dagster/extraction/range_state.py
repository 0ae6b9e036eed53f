"""The state that all pieces of one range share: its request, its deadline, and whether it was stopped."""

from __future__ import annotations

import threading
import time

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import TraceError, Unavailable
from trace_dagster.extraction.request import RangeRequest

STOPPED = "extraction was stopped"
RUN_STOPPED = "the run was stopped"
"""Why a range of a run ends that was terminated, or whose process was told to end."""

TIMEOUT_SECONDS = 3600.0
"""Time for a whole range, unless the stream sets ``timeout_seconds``."""


class RangeState:
    """One range under extraction."""

    def __init__(self, request: RangeRequest, stopped: threading.Event | None) -> None:
        """``stopped`` is set by the caller to stop the range, for example when its lease is lost."""
        self.request = request
        self._seconds = float(request.options.get("timeout_seconds", TIMEOUT_SECONDS))
        self._deadline = time.monotonic() + self._seconds
        self._stopped = stopped
        self._closed = threading.Event()
        self._reason = STOPPED
        self._counting = threading.Lock()
        self._calls = 0

    @property
    def calls(self) -> int:
        """JSON-RPC calls that the engine makes for the range, if none of them has to be repeated."""
        return self._calls

    def count_calls(self, calls: int) -> None:
        """Add the calls of one try of a piece."""
        with self._counting:
            self._calls += calls

    @property
    def seconds_left(self) -> float:
        """Time until the deadline, at least a second."""
        return max(1.0, self._deadline - time.monotonic())

    @property
    def is_closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed.is_set()

    def close(self, reason: str = STOPPED) -> None:
        """Prevent further calls for this range. Calls that are already running continue. The first reason is kept."""
        if not self.is_closed:
            self._reason = reason
        self._closed.set()

    def stopped(self, piece: BlockRange) -> Unavailable:
        """Return the error of a piece that is not extracted because the range was closed."""
        return Unavailable(self._reason, range=piece)

    def require_running(self, piece: BlockRange, last: TraceError | None = None) -> None:
        """Raise Unavailable if the range was stopped or its lease was lost, the last error if its time is over."""
        if self.is_closed:
            raise self.stopped(piece)
        if self._stopped is not None and self._stopped.is_set():
            raise Unavailable("the lease of this range was lost", range=piece)
        if time.monotonic() >= self._deadline:
            if last is not None:
                raise last
            raise Unavailable(f"the range took longer than timeout_seconds={self._seconds:.0f}", range=piece)
