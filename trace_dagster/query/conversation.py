"""What the parent of a query's process says to it and hears from it, from the SQL to the rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trace_dagster.query.arrow_wire import encoded, pieces
from trace_dagster.query.protocol import Format, QueryLimits, Relation, Tips, lines
from trace_dagster.query.query_process import QueryProcess, valid
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.query_stream import QueryStream
from trace_dagster.registry.conditions import Reads
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import with_current_keys

Resolve = Callable[[Mapping[str, Reads]], Iterable[Relation]]
"""Returns the relations of these names with the files, and the other rows, that can be needed."""

TipsOf = Callable[[Collection[str], Collection[str]], Tips]
"""Takes the names of all relations that a query reads, and some of them. Returns what is known of the latter before
:data:`Resolve` is called. Both see the relations at one moment.
"""

Header = Callable[[], Any]
"""Returns what an answer was made of, as JSON, after :data:`Resolve` was called."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query, with the tables that it may read."""

    sql: str
    literals: dict[str, str]
    relations: Sequence[Relation]
    form: Format
    most_rows: int
    """0 for all rows of a stream."""
    timeout_seconds: float


class Conversation:
    """One query, from the SQL to its rows, with the process that runs it."""

    def __init__(self, process: QueryProcess, limits: QueryLimits, folder: str | None) -> None:
        """``folder`` is where the query may put what exceeds its memory."""
        self._process = process
        self._folder = folder
        self._most_bytes = limits.result_mib << 20

    def open(self, asked: Asked, tips: TipsOf, resolve: Resolve, access: S3Access, header: Header) -> None:
        """Check the SQL, and open what it reads. ``header`` is called after ``resolve``; streams carry what it returns.

        Raises the error of the process, and those of ``tips`` and ``resolve``.
        """
        with valid():
            named, wanted = self._check(asked)
        known = tips(named, wanted) if wanted else None
        with valid():
            reads = self._reads(named, known)
        found = list(resolve(reads))
        snapshot = header()
        with valid():
            self._open(found, access, snapshot)
            self._process.receive()["opened"]

    def result(self, most_rows: int) -> QueryResult:
        """Return all rows, if they were requested as JSON."""
        with valid():
            columns = self._columns()
            rows: list[tuple[Any, ...]] = []
            while "rows" in (message := self._process.receive()):
                rows += map(tuple, message["rows"])
                if len(rows) > most_rows or self._process.received > 2 * self._most_bytes:
                    raise ValueError("more than the limit")
            return QueryResult(columns, rows, bool(message["end"]["truncated"]))

    def stream(self, check: Callable[[], None]) -> QueryStream:
        """Return the encoded rows, if they were requested in another format, when the first of them are there.

        ``check`` runs meanwhile; the end of the stream waits for it, and raises its error.
        """
        return QueryStream(self._process, self._columns(), check)

    def _columns(self) -> tuple[tuple[str, str], ...]:
        with valid():
            return tuple((str(name), str(kind)) for name, kind in self._process.receive()["columns"])

    def _open(self, found: Sequence[Relation], access: S3Access, snapshot: Any) -> None:
        """Send the relations. Two names of one dataset share its hot rows, which are encoded once."""
        rows = {id(each.hot): [encoded(piece) for piece in pieces(each.hot)] for each in found}
        relations = [(each.to_json(), len(rows[id(each.hot)])) for each in found]
        keys = asdict(with_current_keys(access))
        self._process.send(relations=relations, access=keys, snapshot=snapshot, folder=self._folder)
        for each in found:
            self._process.send_bytes(lines(each.uris).encode())
            for piece in rows[id(each.hot)]:
                self._process.send_bytes(piece)

    def _check(self, asked: Asked) -> tuple[list[str], list[str]]:
        """Let the process check the SQL; return the relations that it reads, and those whose tips it asks for."""
        shapes = {each.name: each.columns for each in asked.relations}
        self._process.send(
            sql=asked.sql,
            literals=asked.literals,
            shapes=list(shapes.items()),
            format=asked.form,
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
