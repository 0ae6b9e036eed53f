"""One process for one query, as its parent sees it: messages, its deadline, and how it ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from trace_dagster.errors import Cancelled, InvalidInput, TooLate, TraceError, Unavailable
from trace_dagster.query.process_start import StartedProcess, crashed
from trace_dagster.query.protocol import NO_MEMORY, READY, TOO_LARGE, QueryLimits

_START_SECONDS = 60.0
_END_SECONDS = 2.0
_HUNG_SECONDS = 8.0
"""How long a killed process may stay before the fork server is taken to hang. A busy machine is no reason."""
_MESSAGE_BYTES = 4 << 20
"""Most bytes of a message beside the rows."""
_TOO_LONG = "the query took too long: ask for fewer blocks, or aggregate"
_CANCELLED = "the query was cancelled"
_NO_ANSWER = "a query process gave no valid answer: try the query again"

Start = Callable[[socket.socket, QueryLimits], StartedProcess]
"""Starts a process that serves one query over a socket."""


class QueryProcess:
    """One process, for one query. One thread uses it; :meth:`limited` and :meth:`cancel` end it from others."""

    def __init__(self, start: Start, limits: QueryLimits) -> None:
        """Start the process. Raises OSError or Unavailable if there can be none."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._wire = Connection(os.dup(self._socket.fileno()))
                self._process = start(theirs, limits)
            except (OSError, Unavailable):
                self._socket.close()
                raise
        self._is_late = False
        self._is_cancelled = False
        self._most_bytes = (limits.result_mib << 20) + _MESSAGE_BYTES
        self.received = 0
        """Bytes of all messages so far."""

    def await_start(self) -> bool:
        """Wait until the process can take a query. Return False if it ended, or takes too long: then what starts such
        processes is stuck, and is replaced.
        """
        try:
            if not self._wire.poll(_START_SECONDS):
                self._process.abandon()
                return False
            is_ready = self._wire.recv_bytes(_MESSAGE_BYTES) == READY
        except (EOFError, OSError):
            return False
        return is_ready and not self.has_ended()

    def has_ended(self) -> bool:
        """Return whether the process cannot take a query any more."""
        found = select.poll()
        found.register(self._socket, 0)  # reports that the other end is closed, and nothing else
        return bool(found.poll(0)) or self._process.has_ended()

    @contextmanager
    def limited(self, timeout_seconds: float) -> Iterator[None]:
        """End the process when this many seconds have passed. Reading from it then raises TooLate."""
        deadline = threading.Timer(timeout_seconds, self._end_late)
        deadline.daemon = True
        deadline.start()
        try:
            yield
        finally:
            deadline.cancel()

    def cancel(self) -> None:
        """End the process, from any thread. Reading from it then raises Cancelled."""
        self._is_cancelled = True
        self._end()

    def send(self, **message: Any) -> None:
        """Send one message. Raises InvalidInput if a text in it is not Unicode."""
        try:
            data = json.dumps(message).encode()
        except UnicodeError:
            raise InvalidInput("a query must be valid Unicode text") from None
        self.send_bytes(data)

    def send_bytes(self, data: bytes | memoryview) -> None:
        """Send bytes as they are. If the process has ended, the next message that is received says why."""
        with suppress(OSError):
            self._wire.send_bytes(data)

    def receive(self) -> dict[str, Any]:
        """Return the next message. Raises the error that it holds, or that of a process that ended.

        It comes from a process that may have been taken over: whoever reads a message does so within :func:`valid`.
        """
        message: dict[str, Any] = json.loads(self.receive_bytes())
        if "error" in message:
            name, text = message["error"]
            raise (Unavailable if name == Unavailable.__name__ else InvalidInput)(text)
        return message

    def receive_bytes(self) -> bytes:
        """Return the next message as it is. Raises the error of a process that ended."""
        try:
            data = self._wire.recv_bytes(self._most_bytes)
        except (EOFError, OSError):
            raise self._ended() from None
        self.received += len(data)
        return data

    def require_wanted(self) -> None:
        """Raise TooLate after the deadline, Cancelled if the caller cancelled."""
        if self._is_cancelled:
            raise Cancelled(_CANCELLED)
        if self._is_late:
            raise TooLate(_TOO_LONG)

    def close(self) -> None:
        """End the process."""
        self._wire.close()
        self._socket.close()
        self._process.close()

    def _end_late(self) -> None:
        self._is_late = True
        self._end()

    def _end(self) -> None:
        """Kill the process, and let a thread that reads from it see its end even if it lives on."""
        self._process.kill()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _ended(self) -> TraceError:
        """Return the error for a process that ended, or closed its socket, before it answered."""
        code = self._process.wait(_END_SECONDS)
        if code is None and (self._is_late or self._is_cancelled) and self._process.wait(_HUNG_SECONDS) is None:
            self._process.abandon()
        if code is not None and crashed(code):
            self._process.distrust()
        if self._is_cancelled:
            return Cancelled(_CANCELLED)
        if self._is_late or code == -signal.SIGXCPU:
            return TooLate(_TOO_LONG)
        if code is None:
            return Unavailable(_NO_ANSWER)
        if code in (TOO_LARGE, -signal.SIGKILL, -signal.SIGABRT):
            return InvalidInput(NO_MEMORY)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return InvalidInput(f"the query crashed its process ({name}): write it in another way, over fewer rows")


@contextmanager
def valid() -> Iterator[None]:
    """Raise Unavailable if a process sends what it never sends: it was taken over, or damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise Unavailable(_NO_ANSWER) from None
