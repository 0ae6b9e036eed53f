"""Runs queries of users, each in a process of its own that was started ahead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from typing import Any

from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.query.arrow_wire import encoded, pieces
from trace_dagster.query.parameters import Parameters, literals
from trace_dagster.query.protocol import (
    DEFAULT_ROWS,
    MAX_ROWS,
    MAX_SQL_BYTES,
    NO_MEMORY,
    READY,
    TOO_LARGE,
    QueryLimits,
    Relation,
    Tips,
    lines,
)
from trace_dagster.registry.conditions import Reads
from trace_dagster.registry.snapshot_header import SnapshotHeader
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import with_current_keys

_CHILD = ("-P", "-m", "trace_dagster.query.child")
"""Arguments of Python. ``-P`` keeps the current folder out of the module path: its files are not ours."""
_START_SECONDS = 60.0
_END_SECONDS = 2.0
_MESSAGE_BYTES = 4 << 20
"""Most bytes of a message beside the rows."""
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TRACE_STACK_ID")
_TOO_LONG = "the query took too long: ask for fewer blocks, or aggregate"


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns as (name, DuckDB type) and rows of JSON values in column order (see ``render.py``)."""

    columns: tuple[tuple[str, str], ...]
    rows: list[tuple[Any, ...]]
    truncated: bool
    """True if the query had more rows, or more bytes, than it may return."""
    snapshot: SnapshotHeader | None = None
    """What the answer was made of; None if the relations are not those of a registry."""


Resolve = Callable[[Mapping[str, Reads]], Iterable[Relation]]
"""Returns the relations of these names with the files, and the other rows, that can be needed."""

TipsOf = Callable[[Collection[str], Collection[str]], Tips]
"""Takes the names of all relations that a query reads, and some of them. Returns what is known of the latter before
:data:`Resolve` is called. Both see the relations at one moment.
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One query, with the tables that it may read."""

    sql: str
    literals: dict[str, str]
    relations: Sequence[Relation]
    most_rows: int


class QueryRunner:
    """Keeps processes ready for queries. Thread-safe; the caller closes it."""

    def __init__(self, limits: QueryLimits | None = None, *, ahead: int = 1, refill: bool = True) -> None:
        """Start ``ahead`` processes. With ``refill`` each query is followed by the start of a new one."""
        self._limits = limits or QueryLimits()
        self._refill = refill
        self._lock = threading.Lock()
        self._is_closed = False
        self._ready = deque(_QueryProcess(self._limits) for _ in range(ahead))

    def query(
        self,
        sql: str,
        relations: Sequence[Relation],
        access: S3Access,
        limit: int = DEFAULT_ROWS,
        resolve: Resolve | None = None,
        parameters: Parameters | None = None,
        meanwhile: Callable[[], None] = lambda: None,
        tips: TipsOf = lambda _names, _wanted: Tips(),
    ) -> QueryResult:
        """Run SQL from a user and return at most ``limit`` rows (from 1 to MAX_ROWS).

        ``relations`` are all tables that the SQL may read. ``resolve`` returns the relations to open, with their files
        and rows, for what the SQL reads of each; without it they are the given ones. Its error is raised.
        ``parameters`` are the values of ``$name`` by name, or of ``?`` in their order. ``meanwhile`` is called while
        the query runs; if it raises, the query ends with its error. ``tips`` is called before ``resolve`` if the SQL
        compares with heads or a last block; without it they are not known, and more files are needed.

        Raises InvalidInput if the gate refuses the SQL, DuckDB rejects it, or it exceeds its memory. Raises
        Unavailable if it exceeds ``timeout_seconds`` or the object store does not serve a file.
        """
        _require_size(sql)
        asked = _Asked(sql, literals(parameters), relations, max(1, min(limit, MAX_ROWS)))
        process = self._take()
        try:
            return process.run(asked, tips, resolve or _given(relations), access, meanwhile)
        finally:
            process.close()
            self._replace()

    def close(self) -> None:
        """End the processes that wait, and start no other."""
        with self._lock:
            self._is_closed = True
            ended = list(self._ready)
            self._ready.clear()
        for process in ended:
            process.close()

    def _take(self) -> _QueryProcess:
        """Return a process that can take a query. One that died while it waited is replaced once."""
        with self._lock:
            process = self._ready.popleft() if self._ready else None
        if process is not None and process.await_start():
            return process
        if process is not None:
            process.close()
        process = _QueryProcess(self._limits)
        if process.await_start():
            return process
        process.close()
        raise Unavailable("a query process did not start")

    def _replace(self) -> None:
        """Start a process for the next query. If the system refuses, the next query starts its own."""
        with self._lock, suppress(OSError):
            if self._refill and not self._is_closed:
                self._ready.append(_QueryProcess(self._limits))

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
                [sys.executable, *_CHILD, str(theirs.fileno()), json.dumps(asdict(limits))],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                start_new_session=True,
            )
        self._is_late = False
        self._most_bytes = limits.result_mib << 20
        self._received = 0

    def await_start(self) -> bool:
        """Wait until the process can take a query. Return False if it ended, or takes too long."""
        try:
            return self._wire.poll(_START_SECONDS) and self._wire.recv_bytes(_MESSAGE_BYTES) == READY
        except (EOFError, OSError):
            return False

    def run(
        self, asked: _Asked, tips: TipsOf, resolve: Resolve, access: S3Access, meanwhile: Callable[[], None]
    ) -> QueryResult:
        deadline = threading.Timer(self._limits.timeout_seconds, self._end_late)
        deadline.daemon = True
        deadline.start()
        try:
            with _valid():
                named, wanted = self._check(asked)
            known = tips(named, wanted) if wanted else None
            with _valid():
                reads = self._reads(named, known)
            found = list(resolve(reads))
            with _valid():
                self._open(found, access)
                self._receive()["opened"]
            meanwhile()
            with _valid():
                return self._result(asked.most_rows)
        finally:
            deadline.cancel()

    def close(self) -> None:
        self._wire.close()
        self._process.kill()
        self._process.wait()

    def _open(self, found: Sequence[Relation], access: S3Access) -> None:
        """Send the relations. Two names of one dataset share its hot rows, which are encoded once."""
        rows = {id(each.hot): [encoded(piece) for piece in pieces(each.hot)] for each in found}
        relations = [(each.to_json(), len(rows[id(each.hot)])) for each in found]
        self._send(relations=relations, access=asdict(with_current_keys(access)))
        for each in found:
            self._send_bytes(lines(each.uris).encode())
            for piece in rows[id(each.hot)]:
                self._send_bytes(piece)

    def _check(self, asked: _Asked) -> tuple[list[str], list[str]]:
        """Let the process check the SQL; return the relations that it reads, and those whose tips it asks for."""
        shapes = {each.name: each.columns for each in asked.relations}
        self._send(sql=asked.sql, literals=asked.literals, shapes=list(shapes.items()), rows=asked.most_rows)
        message = self._receive()
        named, wanted = ([str(name) for name in message[key]] for key in ("relations", "tips"))
        if not (set(wanted) <= set(named) <= shapes.keys()):
            raise ValueError("a relation that the query was not offered")
        return named, wanted

    def _reads(self, named: Sequence[str], known: Tips | None) -> dict[str, Reads]:
        """Return what the query needs of each relation, after the process got the tips that it waits for."""
        if known is not None:
            self._send(tips=asdict(known))
        reads = {str(name): Reads.from_json(found) for name, found in self._receive()["reads"].items()}
        if reads.keys() != set(named):
            raise ValueError("other relations than the query reads")
        return reads

    def _result(self, most_rows: int) -> QueryResult:
        columns = tuple((str(name), str(kind)) for name, kind in self._receive()["columns"])
        rows: list[tuple[Any, ...]] = []
        while "rows" in (message := self._receive()):
            rows += map(tuple, message["rows"])
            if len(rows) > most_rows or self._received > 2 * self._most_bytes:
                raise ValueError("more than the limit")
        return QueryResult(columns, rows, bool(message["end"]["truncated"]))

    def _send(self, **message: Any) -> None:
        try:
            data = json.dumps(message).encode()
        except UnicodeError:
            raise InvalidInput("a query must be valid Unicode text") from None
        self._send_bytes(data)

    def _send_bytes(self, data: bytes | memoryview) -> None:
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
            data = self._wire.recv_bytes(self._most_bytes + _MESSAGE_BYTES)
        except (EOFError, OSError):
            raise self._ended() from None
        self._received += len(data)
        return data

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _ended(self) -> TraceError:
        """Return the error for a process that ended, or closed its socket, before it answered."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return Unavailable("a query process gave no valid answer: try the query again")
        if self._is_late or code == -signal.SIGXCPU:
            return Unavailable(_TOO_LONG)
        if code in (TOO_LARGE, -signal.SIGKILL, -signal.SIGABRT):
            return InvalidInput(NO_MEMORY)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return InvalidInput(f"the query crashed its process ({name}): write it in another way, over fewer rows")


@contextmanager
def _valid() -> Iterator[None]:
    """Raise Unavailable if a process sends what it never sends: it was taken over, or damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise Unavailable("a query process gave no valid answer: try the query again") from None


def _given(relations: Sequence[Relation]) -> Resolve:
    known = {each.name: each for each in relations}
    return lambda reads: [known[name] for name in reads]


def _require_size(sql: str) -> None:
    if len(sql) > MAX_SQL_BYTES:
        raise InvalidInput(f"a query is at most {MAX_SQL_BYTES} bytes")
