"""Opens a query: of the relations that its SQL reads, finds the files and the hot rows that it can need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from trace_dagster.errors import TraceError, Unavailable
from trace_dagster.query.parameters import Parameters
from trace_dagster.query.protocol import DEFAULT_ROWS, Relation, Tips
from trace_dagster.query.relations import Lake
from trace_dagster.query.runner import QueryResult, QueryRunner
from trace_dagster.registry.as_of import NO_CUT, AsOf
from trace_dagster.registry.catalog import Catalog, LakeSnapshot, Opened
from trace_dagster.registry.conditions import Reads
from trace_dagster.store.access import S3Access


class Committed(Protocol):
    """Compares committed files with the objects in the bucket (``evidence/committed_objects.py``)."""

    def require_intact(self, keys: Sequence[str]) -> None:
        """Raise Corrupt if one of these files is missing or altered."""

    def unreadable(self, keys: Sequence[str]) -> TraceError | None:
        """Return why these files cannot be read; None if they can."""


class Opening:
    """Runs queries over everything that is committed or hot."""

    def __init__(self, catalog: Catalog, access: S3Access, committed: Committed) -> None:
        self._catalog = catalog
        self._access = access
        self._committed = committed

    def query(
        self,
        runner: QueryRunner,
        sql: str,
        limit: int = DEFAULT_ROWS,
        parameters: Parameters | None = None,
        as_of: AsOf = NO_CUT,
    ) -> QueryResult:
        """Run one SELECT. The files that it reads are compared with the bucket's objects while it runs.

        Raises Corrupt if one of these files is missing or altered, and what ``Catalog.open`` and ``runner.query``
        raise.
        """
        datasets, followed = self._catalog.offered()
        lake = Lake(datasets, self._access, followed)
        found: list[Opened] = []
        begun: list[LakeSnapshot] = []
        held = ExitStack()

        def snapshot(names: Collection[str]) -> LakeSnapshot:
            if not begun:
                chains = lake.chains_of_heads(names)
                begun.append(held.enter_context(self._catalog.snapshot(lake.datasets_of(names), as_of, chains)))
            return begun[0]

        def tips(names: Collection[str], wanted: Iterable[str]) -> Tips:
            return lake.tips(wanted, snapshot(names))

        def resolve(reads: Mapping[str, Reads]) -> list[Relation]:
            with held:
                found.append(snapshot(reads).open(lake.reads(reads)))
            return lake.relations(reads, found[0])

        def check() -> None:
            self._committed.require_intact(_keys(found))

        try:
            with held:
                result = runner.query(sql, lake.shapes(), self._access, limit, resolve, parameters, check, tips)
        except Unavailable as error:
            raise self._committed.unreadable(_keys(found)) or error from None
        return replace(result, snapshot=found[0].header)


def _keys(opened: Sequence[Opened]) -> list[str]:
    """Return the keys of all objects that an answer depends on: with an altered index, rows would be missing in it."""
    found = [files for each in opened for files in each.files.values()]
    return [key for each in found for key in (*each.all_keys(), *each.index_keys())]
