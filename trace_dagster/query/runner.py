"""Runs queries of users, each in a process of its own that was started ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from trace_dagster.errors import InvalidInput
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.query.conversation import Asked, Conversation, Header, Resolve, TipsOf
from trace_dagster.query.parameters import Parameters, literals
from trace_dagster.query.process_pool import ProcessPool
from trace_dagster.query.protocol import (
    DEFAULT_ROWS,
    MAX_ROWS,
    MAX_SQL_BYTES,
    QueryLimits,
    Relation,
    StreamFormat,
    Tips,
)
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.query_stream import QueryStream
from trace_dagster.query.temporary_space import TemporarySpace
from trace_dagster.store.access import S3Access


class QueryRunner:
    """Keeps processes ready for queries. Thread-safe; the caller closes it."""

    def __init__(self, limits: QueryLimits | None = None, *, ahead: int = 1, refill: bool = True) -> None:
        """Start ``ahead`` processes. With ``refill``, others are started in their place when they were used."""
        self._limits = limits or QueryLimits()
        self._space = TemporarySpace(self._limits.temporary_mib)
        self.pool = ProcessPool(self._limits, ahead, refill=refill)
        """Processes that wait for queries."""

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
        asked = Asked(sql, literals(parameters), relations, "json", max(1, min(limit, MAX_ROWS)), seconds)
        with self._conversation(seconds, cancellation) as conversation:
            conversation.open(asked, tips, resolve or _given(relations), access, lambda: None)
            meanwhile()
            return conversation.result(asked.most_rows)

    @contextmanager
    def stream(
        self,
        sql: str,
        relations: Sequence[Relation],
        access: S3Access,
        form: StreamFormat,
        resolve: Resolve | None = None,
        parameters: Parameters | None = None,
        meanwhile: Callable[[], None] = lambda: None,
        tips: TipsOf = lambda _names, _wanted: Tips(),
        cancellation: Cancellation | None = None,
        header: Header = lambda: None,
        limit: int | None = None,
    ) -> Iterator[QueryStream]:
        """Run SQL from a user, and yield its rows in a format, when the first of them are there: all, or the first ones
        up to ``limit``.

        The parameters are those of :meth:`query`. ``meanwhile`` runs in another thread. ``header`` is called after
        ``resolve``; it returns JSON that Arrow and Parquet have in their metadata. The query may take
        ``stream_seconds``; leaving the block ends it.

        Raises as :meth:`query` does, before the block or while the stream is read.
        """
        _require_size(sql)
        seconds = self._limits.stream_seconds
        asked = Asked(sql, literals(parameters), relations, form, limit or 0, seconds)
        with self._conversation(seconds, cancellation) as conversation:
            conversation.open(asked, tips, resolve or _given(relations), access, header)
            yield conversation.stream(meanwhile)

    @contextmanager
    def _conversation(self, seconds: float, cancellation: Cancellation | None) -> Iterator[Conversation]:
        """Give the block a process of its own for at most so long."""
        with self._space.folder() as folder:
            process = self.pool.take(cancellation)
            try:
                with process.limited(seconds):
                    yield Conversation(process, self._limits, folder)
            finally:
                process.close()
                self.pool.refill()

    def close(self) -> None:
        """End the processes that wait, and start no other."""
        self.pool.close()
        self._space.close()

    def __enter__(self) -> QueryRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _given(relations: Sequence[Relation]) -> Resolve:
    known = {each.name: each for each in relations}
    return lambda reads: [known[name] for name in reads]


def _require_size(sql: str) -> None:
    if len(sql) > MAX_SQL_BYTES:
        raise InvalidInput(f"a query is at most {MAX_SQL_BYTES} bytes")
