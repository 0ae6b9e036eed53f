"""One attempt at a task: its lease is renewed until the attempt ends, and its end is recorded a single time."""

from __future__ import annotations

import threading

from trace_dagster.errors import RETRYABLE, LeaseLost, NotYet, TraceError, Unavailable
from trace_dagster.extraction.range_state import RUN_STOPPED
from trace_dagster.ingest.heartbeat import Heartbeats
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.tasks import Lease, Tasks

_log = component_log("ingest")


class Attempt:
    """The holder of a lease. Thread-safe; only the first call that ends it has an effect."""

    def __init__(self, lease: Lease, tasks: Tasks, heartbeats: Heartbeats, facts: dict[str, object]) -> None:
        """Start to renew ``lease``; ``facts`` name the range in log lines."""
        self.lease = lease
        self._tasks = tasks
        self._heartbeats = heartbeats
        self._facts = {**facts, "attempt": lease.attempt}
        self._lock = threading.Lock()
        self._has_ended = False
        self.lost = heartbeats.add(lease)
        """Set when the lease was lost: the holder must stop, and can commit nothing."""

    def succeed(self, **facts: object) -> None:
        """Record in the log that the attempt committed; the commit has ended it in the registry."""
        if self._end():
            self._heartbeats.remove(self.lease)
            _log.event("committed", **self._facts, **facts)

    def fail(self, error: BaseException) -> None:
        """End the attempt with the reason of its failure, unless its lease was lost.

        The task is tried again if the error is RETRYABLE or unexpected. An interrupt (KeyboardInterrupt and the like)
        releases the task without counting a failure. Raises Unavailable if the registry does not answer.
        """
        if self._end():
            try:
                self._record(error)
            finally:
                self._heartbeats.remove(self.lease)

    def release(self, reason: str) -> None:
        """Return the task to the queue without counting a failure, because the run stops. Never raises."""
        if self._end():
            self._heartbeats.remove(self.lease)
            _log.warning("released", **self._facts, reason=reason)
            try:
                self._tasks.release(self.lease)
            except Unavailable as error:
                _log.warning("lease_left_to_lapse", **self._facts, reason=error)

    def abandon(self, reason: str) -> None:
        """End the attempt as failed because its step ended without a commit. Never raises."""
        try:
            self.fail(Unavailable(reason))
        except Unavailable as error:
            _log.warning("lease_left_to_lapse", **self._facts, reason=error)

    def _end(self) -> bool:
        """Return True for the first caller."""
        with self._lock:
            is_first, self._has_ended = not self._has_ended, True
        return is_first

    def _record(self, error: BaseException) -> None:
        if isinstance(error, LeaseLost):
            _log.warning("lease_lost", **self._facts, reason=error)
        elif isinstance(error, TraceError):
            will_retry = self._tasks.fail(
                self.lease,
                str(error),
                retry=isinstance(error, RETRYABLE),
                is_counted=not isinstance(error, NotYet),
            )
            _log.warning("failed", **self._facts, reason=error, will_retry=will_retry)
        elif isinstance(error, Exception):
            will_retry = self._tasks.fail(self.lease, f"unexpected {type(error).__name__}", retry=True)
            _log.warning("failed", **self._facts, reason=f"unexpected {type(error).__name__}", will_retry=will_retry)
        else:
            self._tasks.release(self.lease)
            _log.warning("released", **self._facts, reason=RUN_STOPPED)
