"""A process that runs SQL in a query session with the gate switched off, many statements one after the other."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from trace_dagster.errors import TraceError
from trace_dagster.query import statement
from trace_dagster.query.left_out import keep_filters_from_arrow
from trace_dagster.query.planner import planner
from trace_dagster.query.protocol import QueryLimits, Relation
from trace_dagster.query.session import QuerySession
from trace_dagster.query.statement import UserStatement
from trace_dagster.store.access import S3Access

_MEMORY_BYTES = 3 << 30
_SPAWN = multiprocessing.get_context("spawn")


class UngatedProcess:
    """Runs statements; a process that does not answer in time or dies is replaced."""

    def __init__(
        self, relations: list[Relation], access: S3Access, folder: str | None = None, seconds: float = 1.0
    ) -> None:
        self._arguments = relations, access, folder
        self._seconds = seconds
        self._start()

    def answer(self, sql: str) -> str:
        """Return the first rows as text, ``refused: `` and the error, or ``ended`` if the process gave no answer."""
        self._wire.send(sql)
        try:
            if self._wire.poll(self._seconds):
                return str(self._wire.recv())
        except EOFError:
            pass
        self.close()
        self._start()
        return "ended"

    def close(self) -> None:
        self._wire.close()
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        self._wire, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        assert self._wire.poll(60)
        self._wire.recv()


@contextmanager
def ungated(relations: list[Relation], access: S3Access, folder: str | None = None) -> Iterator[UngatedProcess]:
    """Run the process for the block's time. ``folder`` is where its session may put what exceeds its memory."""
    process = UngatedProcess(relations, access, folder)
    try:
        yield process
    finally:
        process.close()


def _serve(wire: Connection, relations: list[Relation], access: S3Access, folder: str | None) -> None:
    keep_filters_from_arrow()
    statement.check = lambda _tree, names: frozenset(names)
    shapes = {each.name: each.columns for each in relations}
    limits = QueryLimits(memory_mib=256, temporary_mib=512 if folder else 0)
    with QuerySession(limits) as session, planner() as parsing:
        session.open(relations, access, folder=folder)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        wire.send("ready")
        while True:
            try:
                _, batches = UserStatement(wire.recv(), shapes, parsing).run(session)
                wire.send(repr(next(batches, []))[:100_000])
            except (TraceError, MemoryError) as error:
                wire.send(f"refused: {error}")
