"""The encoded rows of a query, which its parent passes on without reading them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from trace_dagster.query.protocol import COUNT_BYTES
from trace_dagster.query.query_process import QueryProcess, valid

_CHECK_SECONDS = 0.3
"""How long the first bytes wait for the check of the files. Most checks are done before there are any bytes; a check of
many files takes seconds, and then an error breaks the stream instead of preceding it.
"""
_POLL_SECONDS = 0.2


class QueryStream:
    """Encoded rows. Iterate once: if an error is raised, the bytes so far are no whole answer."""

    def __init__(self, process: QueryProcess, columns: tuple[tuple[str, str], ...], check: Callable[[], None]) -> None:
        """Wait for the first bytes. Raises the error of the process if there are none, or of the check."""
        self.columns = columns
        """``(name, DuckDB type)`` of each column. In Arrow and Parquet a name that is used twice gets a number."""
        self.rows = 0
        """Rows whose bytes were returned so far; of Parquet, those of the row groups that were begun."""
        self.bytes = 0
        """Bytes that were returned so far."""
        self._process = process
        self._check = _Check(check)
        self._first = self._receive()
        self._check.wait(_CHECK_SECONDS)

    def __iter__(self) -> Iterator[bytes]:
        """Yield bytes as they come. Raises Unavailable if the object store does not serve a file, InvalidInput if
        DuckDB cannot compute a row or needs more memory than it may, TooLate after the deadline, Cancelled, and the
        error of the check.
        """
        data = self._first
        while data:
            self._check.require_no_error()
            self.bytes += len(data)
            yield data
            data = self._receive()
        while not self._check.wait(_POLL_SECONDS):
            self._process.require_wanted()

    def _receive(self) -> bytes:
        """Return the next bytes; none at the end."""
        with valid():
            message = self._process.receive_bytes()
            if message:
                self.rows = int.from_bytes(message[:COUNT_BYTES], "big")
                return message[COUNT_BYTES:]
            if self._process.receive()["end"]["rows"] != self.rows:
                raise ValueError("other rows than were sent")
        return message


class _Check:
    """Runs a function in a thread of its own."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._function = check
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="query-check", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for the end of the function; return whether it ended. Raises its error."""
        self._thread.join(seconds)
        self.require_no_error()
        return not self._thread.is_alive()

    def require_no_error(self) -> None:
        """Raise the error of the function if it ended with one."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:
            self._error = error
