"""Opens a query: of the relations that its SQL reads, finds the files and the hot rows that it can need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from trace_dagster.errors import TooLate, TraceError, Unavailable
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.query.parameters import Parameters
from trace_dagster.query.protocol import DEFAULT_ROWS, Relation, StreamFormat, Tips
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.query_stream import QueryStream
from trace_dagster.query.relations import Lake
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.as_of import NO_CUT, AsOf
from trace_dagster.registry.catalog import Catalog, LakeSnapshot, Opened
from trace_dagster.registry.conditions import Reads
from trace_dagster.registry.grants import ALL, Grants
from trace_dagster.store.access import S3Access

Seen = Callable[[Opened], None]
"""Takes what a query opens."""


class Committed(Protocol):
    """Compares committed files with the objects in the bucket (``evidence/committed_objects.py``)."""

    def require_intact(self, keys: Sequence[str]) -> None:
        """Raise Corrupt if one of these files is missing or altered."""

    def unreadable(self, keys: Sequence[str]) -> TraceError | None:
        """Return why these files cannot be read; None if they can."""


class LakeStream:
    """Encoded rows of a query over the lake. Iterate once: after an error, the bytes so far are no whole answer."""

    def __init__(self, stream: QueryStream, opened: Opened, committed: Committed) -> None:
        self.columns = stream.columns
        """``(name, DuckDB type)`` of each column."""
        self.snapshot = opened.header
        self._stream = stream
        self._opened = opened
        self._committed = committed

    @property
    def rows(self) -> int:
        """Rows whose bytes were returned so far."""
        return self._stream.rows

    def __iter__(self) -> Iterator[bytes]:
        """Yield bytes as they come. Raises as ``QueryStream`` does, and Corrupt if a file is missing or altered."""
        with _reasons(self._committed, [self._opened]):
            yield from self._stream


class Opening:
    """Runs queries over everything that is committed or hot."""

    def __init__(self, catalog: Catalog, access: S3Access, committed: Committed) -> None:
        self._catalog = catalog
        self._access = access
        self._committed = committed

    @property
    def access(self) -> S3Access:
        """The bucket and the credentials that queries use."""
        return self._access

    def query(
        self,
        runner: QueryRunner,
        sql: str,
        limit: int = DEFAULT_ROWS,
        parameters: Parameters | None = None,
        as_of: AsOf = NO_CUT,
        *,
        grants: Grants = ALL,
        cancellation: Cancellation | None = None,
        seen: Seen | None = None,
    ) -> QueryResult:
        """Run one SELECT. The files that it reads are compared with the bucket's objects while it runs.

        Relations that the ``grants`` do not allow do not exist for it. ``seen`` is called when its files are known, and
        no row has been read. Raises Corrupt if one of these files is missing or altered, and what ``Catalog.open`` and
        ``runner.query`` raise.
        """
        with self._reading(as_of, grants, seen) as reading:
            result = runner.query(
                sql,
                reading.lake.shapes(),
                self._access,
                limit,
                reading.resolve,
                parameters,
                reading.check,
                reading.tips,
                cancellation=cancellation,
            )
        return replace(result, snapshot=reading.opened.header)

    @contextmanager
    def stream(
        self,
        runner: QueryRunner,
        sql: str,
        form: StreamFormat,
        parameters: Parameters | None = None,
        as_of: AsOf = NO_CUT,
        *,
        grants: Grants = ALL,
        cancellation: Cancellation | None = None,
        seen: Seen | None = None,
        limit: int | None = None,
    ) -> Iterator[LakeStream]:
        """Run one SELECT, and yield its rows in a format: all of them unless there is a ``limit``. The other parameters
        are those of :meth:`query`.

        The files are compared with the bucket's objects while the rows are computed; the first bytes wait 0.3 s for
        that, the end waits until it is done. Raises as :meth:`query` does, before the block or while rows are read.
        """
        with ExitStack() as held:
            with self._reading(as_of, grants, seen) as reading:
                found = runner.stream(
                    sql,
                    reading.lake.shapes(),
                    self._access,
                    form,
                    reading.resolve,
                    parameters,
                    reading.check,
                    reading.tips,
                    cancellation,
                    reading.header,
                    limit,
                )
                stream = held.enter_context(found)
            yield LakeStream(stream, reading.opened, self._committed)

    @contextmanager
    def _reading(self, as_of: AsOf, grants: Grants, seen: Seen | None) -> Iterator[_Reading]:
        datasets, followed = self._catalog.offered()
        allowed = [each for each in datasets if grants.allows(each.chain_id, each.dataset_key)]
        chains = grants.chains((each.chain_id, each.dataset_key) for each in datasets)
        lake = Lake(allowed, self._access, [chain for chain in followed if chain in chains or grants == ALL])
        reading = _Reading(self._catalog, lake, as_of, self._committed, seen)
        with _reasons(self._committed, reading.found), reading.held:
            yield reading


class _Reading:
    """One query's view of the lake: everything that it learns is of one moment."""

    def __init__(self, catalog: Catalog, lake: Lake, as_of: AsOf, committed: Committed, seen: Seen | None) -> None:
        self.lake = lake
        self.held = ExitStack()
        """Holds the snapshot until the files are known."""
        self.found: list[Opened] = []
        """What was opened, once it is."""
        self._catalog = catalog
        self._as_of = as_of
        self._committed = committed
        self._seen = seen
        self._begun: list[LakeSnapshot] = []

    @property
    def opened(self) -> Opened:
        """What was opened."""
        return self.found[0]

    def header(self) -> dict[str, Any]:
        return self.opened.header.to_json()

    def tips(self, names: Collection[str], wanted: Iterable[str]) -> Tips:
        return self.lake.tips(wanted, self._snapshot(names))

    def resolve(self, reads: Mapping[str, Reads]) -> list[Relation]:
        with self.held:
            self.found.append(self._snapshot(reads).open(self.lake.reads(reads)))
        if self._seen is not None:
            self._seen(self.opened)
        return self.lake.relations(reads, self.opened)

    def check(self) -> None:
        self._committed.require_intact(_keys(self.found))

    def _snapshot(self, names: Collection[str]) -> LakeSnapshot:
        if not self._begun:
            chains = self.lake.chains_of_heads(names)
            datasets = self.lake.datasets_of(names)
            self._begun.append(self.held.enter_context(self._catalog.snapshot(datasets, self._as_of, chains)))
        return self._begun[0]


@contextmanager
def _reasons(committed: Committed, found: Sequence[Opened]) -> Iterator[None]:
    """Raise the reason why a file cannot be read, which the query's process does not know."""
    try:
        yield
    except TooLate:
        raise
    except Unavailable as error:
        raise committed.unreadable(_keys(found)) or error from None


def _keys(opened: Sequence[Opened]) -> list[str]:
    """Return the keys of all objects that an answer depends on: with an altered index, rows would be missing in it."""
    found = [files for each in opened for files in each.files.values()]
    return [key for each in found for key in (*each.all_keys(), *each.index_keys())]
