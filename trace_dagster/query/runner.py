"""Runs queries of users, each in a process of its own that was started ahead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from multiprocessing import Pipe
from typing import Any

from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.query.protocol import DEFAULT_ROWS, MAX_ROWS, NO_MEMORY, READY, TOO_LARGE, QueryLimits, Relation
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import with_current_keys

_START_SECONDS = 60.0
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TRACE_STACK_ID")
_TOO_LONG = "the query took too long: ask for fewer blocks, or aggregate"


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns as (name, DuckDB type) and rows of JSON values in column order (see ``render.py``)."""

    columns: tuple[tuple[str, str], ...]
    rows: list[tuple[Any, ...]]
    truncated: bool
    """True if the query had more rows, or more bytes, than it may return."""


class QueryRunner:
    """Keeps processes ready for queries. Thread-safe; the caller closes it."""

    def __init__(self, limits: QueryLimits | None = None, *, ahead: int = 1, refill: bool = True) -> None:
        """Start ``ahead`` processes. With ``refill`` each query is followed by the start of a new one."""
        self._limits = limits or QueryLimits()
        self._refill = refill
        self._ready = deque(_QueryProcess(self._limits) for _ in range(ahead))

    def query(
        self,
        sql: str,
        relations: Sequence[Relation],
        access: S3Access,
        limit: int = DEFAULT_ROWS,
        on_open: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> QueryResult:
        """Run SQL from a user and return at most ``limit`` rows (from 1 to MAX_ROWS).

        ``on_open`` gets the names of the relations that the SQL reads, before their files are opened; its error is
        raised. Raises InvalidInput if the gate refuses the SQL, DuckDB rejects it, or it exceeds its memory. Raises
        Unavailable if it exceeds ``timeout_seconds`` or the object store does not serve a file.
        """
        try:
            process = self._ready.popleft()
        except IndexError:
            process = _QueryProcess(self._limits)
        try:
            return process.run(sql, relations, access, max(1, min(limit, MAX_ROWS)), on_open)
        finally:
            process.close()
            if self._refill:
                self._ready.append(_QueryProcess(self._limits))

    def close(self) -> None:
        """End the processes that wait."""
        while self._ready:
            self._ready.popleft().close()

    def __enter__(self) -> QueryRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _QueryProcess:
    """One process, for one query."""

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._wire, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trace_dagster.query.child", str(theirs.fileno()), json.dumps(asdict(limits))],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                start_new_session=True,
            )
        self._is_late = False

    def run(
        self,
        sql: str,
        relations: Sequence[Relation],
        access: S3Access,
        most_rows: int,
        on_open: Callable[[frozenset[str]], None],
    ) -> QueryResult:
        if not self._wire.poll(_START_SECONDS) or self._receive_bytes() != READY:
            raise Unavailable("a query process did not start")
        deadline = threading.Timer(self._limits.timeout_seconds, self._end_late)
        deadline.daemon = True
        deadline.start()
        try:
            return self._run(sql, {each.name: each for each in relations}, access, most_rows, on_open)
        finally:
            deadline.cancel()

    def close(self) -> None:
        self._wire.close()
        self._process.kill()
        self._process.wait()

    def _run(
        self,
        sql: str,
        known: dict[str, Relation],
        access: S3Access,
        most_rows: int,
        on_open: Callable[[frozenset[str]], None],
    ) -> QueryResult:
        self._send(sql=sql, shapes=[(each.name, each.columns) for each in known.values()], rows=most_rows)
        names = self._receive()["relations"]
        on_open(frozenset(names))
        self._send(relations=[astuple(known[name]) for name in names], access=asdict(with_current_keys(access)))
        columns = tuple((name, kind) for name, kind in self._receive()["columns"])
        rows: list[tuple[Any, ...]] = []
        while "rows" in (message := self._receive()):
            rows += map(tuple, message["rows"])
        return QueryResult(columns, rows, message["end"]["truncated"])

    def _send(self, **message: Any) -> None:
        try:
            data = json.dumps(message).encode()
        except UnicodeError:
            raise InvalidInput("a query must be valid Unicode text") from None
        with suppress(OSError):  # the process has ended; reading says why
            self._wire.send_bytes(data)

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._receive_bytes())
        if "error" in message:
            name, text = message["error"]
            raise (Unavailable if name == Unavailable.__name__ else InvalidInput)(text)
        return message

    def _receive_bytes(self) -> bytes:
        try:
            return self._wire.recv_bytes()
        except (EOFError, OSError):
            raise self._ended() from None

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _ended(self) -> TraceError:
        """Return the error for a process that ended before it answered."""
        code = self._process.wait()
        if self._is_late or code == -signal.SIGXCPU:
            return Unavailable(_TOO_LONG)
        if code in (TOO_LARGE, -signal.SIGKILL, -signal.SIGABRT):
            return InvalidInput(NO_MEMORY)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return InvalidInput(f"the query crashed its process ({name}): write it in another way, over fewer rows")
