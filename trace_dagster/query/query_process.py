"""One process for one query, as its parent sees it: messages, its deadline, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing import Pipe
from typing import Any

from trace_dagster.errors import Cancelled, InvalidInput, TooLate, TraceError, Unavailable
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.query.protocol import NO_MEMORY, READY, TOO_LARGE, QueryLimits

_CHILD = ("-P", "-m", "trace_dagster.query.child")
"""Arguments of Python. ``-P`` keeps the current folder out of the module path: its files are not ours."""
_START_SECONDS = 60.0
_END_SECONDS = 2.0
_MESSAGE_BYTES = 4 << 20
"""Most bytes of a message beside the rows."""
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TRACE_STACK_ID")
_TOO_LONG = "the query took too long: ask for fewer blocks, or aggregate"
_CANCELLED = "the query was cancelled"


class QueryProcess:
    """One process, for one query. Used by one thread; :meth:`limited` ends it from others."""

    def __init__(self, limits: QueryLimits) -> None:
        self._wire, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *_CHILD, str(theirs.fileno()), json.dumps(asdict(limits))],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._is_late = False
        self._is_cancelled = False
        self._most_bytes = (limits.result_mib << 20) + _MESSAGE_BYTES
        self.received = 0
        """Bytes of all messages so far."""

    def await_start(self) -> bool:
        """Wait until the process can take a query. Return False if it ended, or takes too long."""
        try:
            return self._wire.poll(_START_SECONDS) and self._wire.recv_bytes(_MESSAGE_BYTES) == READY
        except (EOFError, OSError):
            return False

    @contextmanager
    def limited(self, timeout_seconds: float, cancellation: Cancellation | None = None) -> Iterator[None]:
        """End the process when this many seconds have passed, or when the caller cancels. Reading from it then raises
        TooLate or Cancelled.
        """
        deadline = threading.Timer(timeout_seconds, self._end_late)
        deadline.daemon = True
        deadline.start()
        try:
            if cancellation is not None:
                cancellation.on_ask(self._end_cancelled)
            yield
        finally:
            deadline.cancel()

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
        """End the process, and wait until it has ended."""
        self._wire.close()
        self._process.kill()
        self._process.wait()

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _end_cancelled(self) -> None:
        self._is_cancelled = True
        self._process.kill()

    def _ended(self) -> TraceError:
        """Return the error for a process that ended, or closed its socket, before it answered."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return Unavailable("a query process gave no valid answer: try the query again")
        if self._is_cancelled:
            return Cancelled(_CANCELLED)
        if self._is_late or code == -signal.SIGXCPU:
            return TooLate(_TOO_LONG)
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
        raise Unavailable("a query process gave no valid answer: try the query again") from None
