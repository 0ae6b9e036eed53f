"""A process that answers many queries over given relations, as a query's process does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from trace_dagster.errors import TraceError
from trace_dagster.query.left_out import keep_filters_from_arrow
from trace_dagster.query.planner import planner
from trace_dagster.query.protocol import Relation
from trace_dagster.query.session import QuerySession
from trace_dagster.query.statement import UserStatement
from trace_dagster.store.access import S3Access

_SPAWN = multiprocessing.get_context("spawn")
Run = Callable[[Sequence[str], Sequence[Relation]], list[list[tuple]]]


@contextmanager
def session_process(access: S3Access) -> Iterator[Run]:
    """Start the process; yield a function that returns the rows of each query over relations, in one session."""
    wire, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, access), daemon=True)
    process.start()
    theirs.close()

    def run(queries: Sequence[str], relations: Sequence[Relation]) -> list[list[tuple]]:
        wire.send((queries, relations))
        answer = wire.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    try:
        yield run
    finally:
        wire.close()
        process.join(10)


def _serve(wire: Connection, access: S3Access) -> None:
    keep_filters_from_arrow()
    with planner() as parsing, suppress(EOFError):
        while True:
            queries, relations = wire.recv()
            shapes = {each.name: each.columns for each in relations}
            try:
                with QuerySession.over(relations, access) as session:
                    wire.send([_rows(UserStatement(sql, shapes, parsing), session) for sql in queries])
            except TraceError as error:
                wire.send(error)


def _rows(statement: UserStatement, session: QuerySession) -> list[tuple]:
    return [row for batch in statement.run(session)[1] for row in batch]
