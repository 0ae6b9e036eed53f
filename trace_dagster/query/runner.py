"""Runs queries of users, each in a process of its own that was started ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from trace_dagster.errors import Cancelled, InvalidInput, Unavailable
from trace_dagster.query.arrow_wire import encoded, pieces
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.query.parameters import Parameters, literals
from trace_dagster.query.protocol import (
    DEFAULT_ROWS,
    MAX_ROWS,
    MAX_SQL_BYTES,
    QueryLimits,
    Relation,
    Tips,
    lines,
)
from trace_dagster.query.query_process import QueryProcess, valid
from trace_dagster.registry.conditions import Reads
from trace_dagster.registry.snapshot_header import SnapshotHeader
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import with_current_keys


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
    timeout_seconds: float


class QueryRunner:
    """Keeps processes ready for queries. Thread-safe; the caller closes it."""

    def __init__(self, limits: QueryLimits | None = None, *, ahead: int = 1, refill: bool = True) -> None:
        """Start ``ahead`` processes. With ``refill`` each query is followed by the start of a new one."""
        self._limits = limits or QueryLimits()
        self._refill = refill
        self._lock = threading.Lock()
        self._is_closed = False
        self._ready = deque(QueryProcess(self._limits) for _ in range(ahead))

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
        timeout_seconds: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> QueryResult:
        """Run SQL from a user and return at most ``limit`` rows (from 1 to MAX_ROWS).

        ``relations`` are all tables that the SQL may read. ``resolve`` returns the relations to open, with their files
        and rows, for what the SQL reads of each; without it they are the given ones. Its error is raised.
        ``parameters`` are the values of ``$name`` by name, or of ``?`` in their order. ``meanwhile`` is called while
        the query runs; if it raises, the query ends with its error. ``tips`` is called before ``resolve`` if the SQL
        compares with heads or a last block; without it they are not known, and more files are needed.
        ``timeout_seconds`` replaces that of the runner's limits. ``cancellation`` ends the query from another thread.

        Raises InvalidInput if the gate refuses the SQL, DuckDB rejects it, or it exceeds its memory. Raises TooLate if
        it takes longer than ``timeout_seconds``, Cancelled if ``cancellation`` was asked for, and Unavailable if the
        object store does not serve a file.
        """
        _require_size(sql)
        seconds = self._limits.timeout_seconds if timeout_seconds is None else timeout_seconds
        asked = _Asked(sql, literals(parameters), relations, max(1, min(limit, MAX_ROWS)), seconds)
        _require_wanted(cancellation)
        process = self._take()
        try:
            with process.limited(seconds, cancellation):
                conversation = _Conversation(process, self._limits)
                return conversation.run(asked, tips, resolve or _given(relations), access, meanwhile)
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

    def _take(self) -> QueryProcess:
        """Return a process that can take a query. One that died while it waited is replaced once."""
        with self._lock:
            process = self._ready.popleft() if self._ready else None
        if process is not None and process.await_start():
            return process
        if process is not None:
            process.close()
        process = QueryProcess(self._limits)
        if process.await_start():
            return process
        process.close()
        raise Unavailable("a query process did not start")

    def _replace(self) -> None:
        """Start a process for the next query. If the system refuses, the next query starts its own."""
        with self._lock, suppress(OSError):
            if self._refill and not self._is_closed:
                self._ready.append(QueryProcess(self._limits))

    def __enter__(self) -> QueryRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Conversation:
    """One query, from the SQL to its rows, with the process that runs it."""

    def __init__(self, process: QueryProcess, limits: QueryLimits) -> None:
        self._process = process
        self._most_bytes = limits.result_mib << 20

    def run(
        self, asked: _Asked, tips: TipsOf, resolve: Resolve, access: S3Access, meanwhile: Callable[[], None]
    ) -> QueryResult:
        with valid():
            named, wanted = self._check(asked)
        known = tips(named, wanted) if wanted else None
        with valid():
            reads = self._reads(named, known)
        found = list(resolve(reads))
        with valid():
            self._open(found, access)
            self._process.receive()["opened"]
        meanwhile()
        with valid():
            return self._result(asked.most_rows)

    def _open(self, found: Sequence[Relation], access: S3Access) -> None:
        """Send the relations. Two names of one dataset share its hot rows, which are encoded once."""
        rows = {id(each.hot): [encoded(piece) for piece in pieces(each.hot)] for each in found}
        relations = [(each.to_json(), len(rows[id(each.hot)])) for each in found]
        self._process.send(relations=relations, access=asdict(with_current_keys(access)))
        for each in found:
            self._process.send_bytes(lines(each.uris).encode())
            for piece in rows[id(each.hot)]:
                self._process.send_bytes(piece)

    def _check(self, asked: _Asked) -> tuple[list[str], list[str]]:
        """Let the process check the SQL; return the relations that it reads, and those whose tips it asks for."""
        shapes = {each.name: each.columns for each in asked.relations}
        self._process.send(
            sql=asked.sql,
            literals=asked.literals,
            shapes=list(shapes.items()),
            rows=asked.most_rows,
            timeout_seconds=asked.timeout_seconds,
        )
        message = self._process.receive()
        named, wanted = ([str(name) for name in message[key]] for key in ("relations", "tips"))
        if not (set(wanted) <= set(named) <= shapes.keys()):
            raise ValueError("a relation that the query was not offered")
        return named, wanted

    def _reads(self, named: Sequence[str], known: Tips | None) -> dict[str, Reads]:
        """Return what the query needs of each relation, after the process got the tips that it waits for."""
        if known is not None:
            self._process.send(tips=asdict(known))
        reads = {str(name): Reads.from_json(found) for name, found in self._process.receive()["reads"].items()}
        if reads.keys() != set(named):
            raise ValueError("other relations than the query reads")
        return reads

    def _result(self, most_rows: int) -> QueryResult:
        columns = tuple((str(name), str(kind)) for name, kind in self._process.receive()["columns"])
        rows: list[tuple[Any, ...]] = []
        while "rows" in (message := self._process.receive()):
            rows += map(tuple, message["rows"])
            if len(rows) > most_rows or self._process.received > 2 * self._most_bytes:
                raise ValueError("more than the limit")
        return QueryResult(columns, rows, bool(message["end"]["truncated"]))


def _given(relations: Sequence[Relation]) -> Resolve:
    known = {each.name: each for each in relations}
    return lambda reads: [known[name] for name in reads]


def _require_size(sql: str) -> None:
    if len(sql) > MAX_SQL_BYTES:
        raise InvalidInput(f"a query is at most {MAX_SQL_BYTES} bytes")


def _require_wanted(cancellation: Cancellation | None) -> None:
    if cancellation is not None and cancellation.is_asked:
        raise Cancelled("the query was cancelled before it began")
