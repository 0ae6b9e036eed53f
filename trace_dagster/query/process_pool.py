"""Processes that wait for queries."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from trace_dagster.errors import Cancelled, Unavailable
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.query.process_start import DirectProcess, ForkServer, can_fork
from trace_dagster.query.protocol import QueryLimits
from trace_dagster.query.query_process import QueryProcess


class ProcessPool:
    """Keeps processes ready, each for one query. Thread-safe; the caller closes it."""

    def __init__(self, limits: QueryLimits, ahead: int, *, refill: bool) -> None:
        """Start ``ahead`` processes. With ``refill``, :meth:`refill` starts others in place of those that were taken:
        for one query alone, a fork server costs more than it saves.
        """
        self._limits = limits
        self._refilled = ahead if refill else 0
        self._fork_server = ForkServer(limits) if refill and can_fork() else None
        self._start = self._fork_server.start if self._fork_server else DirectProcess
        self._lock = threading.Lock()
        self._is_closed = False
        self._waiting: deque[QueryProcess] = deque()
        self._has_failed = False
        """Whether the last process that was to start did not."""
        self.started = 0
        """How many processes were started so far."""
        self._fill(ahead)

    @property
    def ready(self) -> int:
        """How many processes wait for a query."""
        return len(self._waiting)

    def require_working(self) -> None:
        """Raise Unavailable if processes do not start now."""
        if self._has_failed:
            self.refill()
        if self._has_failed:
            raise Unavailable("no process for a query starts now")

    def take(self, cancellation: Cancellation | None = None) -> QueryProcess:
        """Return a process that can take a query. Those that ended while they waited are left out.

        Raises Cancelled if the query is cancelled before, and Unavailable if no process starts.
        """
        while process := self._next():
            if self._can_serve(process, cancellation):
                return process
        if self._is_closed:
            raise Unavailable("queries have ended here: ask another process")
        try:
            process = self._new()
        except OSError as error:
            raise Unavailable(f"a query process did not start: {error.strerror}") from None
        if self._can_serve(process, cancellation):
            return process
        raise Unavailable("a query process did not start: try the query again")

    def refill(self) -> None:
        """Start processes in place of those that were taken or have ended. If the system refuses, :meth:`take` tries
        it again.
        """
        with self._lock:
            ended = [process for process in self._waiting if process.has_ended()]
            self._waiting = deque(process for process in self._waiting if process not in ended)
        for process in ended:
            process.close()
        with suppress(OSError, Unavailable):
            self._fill(self._refilled)

    def close(self) -> None:
        """End the processes that wait, and start no other. Those that were taken go on."""
        with self._lock:
            self._is_closed = True
            ended, self._waiting = self._waiting, deque()
        for process in ended:
            process.close()
        if self._fork_server:
            self._fork_server.close()

    def _next(self) -> QueryProcess | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _fill(self, count: int) -> None:
        with self._lock:
            while len(self._waiting) < count and not self._is_closed:
                self._waiting.append(self._new())

    def _new(self) -> QueryProcess:
        self._has_failed = True
        process = QueryProcess(self._start, self._limits)
        self._has_failed = False
        self.started += 1
        return process

    @staticmethod
    def _can_serve(process: QueryProcess, cancellation: Cancellation | None) -> bool:
        """Return whether a process is ready; close it if it is not. It ends when the query is cancelled."""
        if cancellation is not None:
            cancellation.on_ask(process.cancel)
        if process.await_start():
            return True
        process.close()
        if cancellation is not None and cancellation.is_asked:
            raise Cancelled("the query was cancelled before it began")
        return False
