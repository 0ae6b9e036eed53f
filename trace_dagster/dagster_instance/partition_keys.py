"""Partition keys in block order: Dagster itself reads keys in the order in which they were added."""

from __future__ import annotations

from collections.abc import Sequence

from dagster import PaginatedResults
from dagster._core.storage.event_log.schema import DynamicPartitionsTable
from dagster_postgres.event_log import PostgresEventLogStorage
from sqlalchemy import Select, select

from trace_dagster.planning.run_groups import is_grid

_KEY = DynamicPartitionsTable.c.partition
"""Zero-padded, so that the order of the text, which is that of the table's index, is the order of the blocks."""


def _grid_keys(name: str) -> Select[tuple[str]]:
    return select(_KEY).where(DynamicPartitionsTable.c.partitions_def_name == name)


class BlockOrderedKeys(PostgresEventLogStorage):
    """An event log that sorts the keys of a grid when they are read, so that the order of additions has no effect."""

    def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
        """Return all keys of a partitions definition: those of a grid in block order, others as Dagster orders them."""
        if not is_grid(partitions_def_name):
            return super().get_dynamic_partitions(partitions_def_name)
        with self.index_connection() as conn:
            return [str(row[0]) for row in conn.execute(_grid_keys(partitions_def_name).order_by(_KEY.asc()))]

    def get_paginated_dynamic_partitions(
        self, partitions_def_name: str, limit: int, ascending: bool, cursor: str | None = None
    ) -> PaginatedResults[str]:
        """Return up to ``limit`` keys behind ``cursor``, in the order of :meth:`get_dynamic_partitions` or reversed.

        A cursor of a grid is the last key of the page before.
        """
        if not is_grid(partitions_def_name):
            return super().get_paginated_dynamic_partitions(partitions_def_name, limit, ascending, cursor)
        query = _grid_keys(partitions_def_name).order_by(_KEY.asc() if ascending else _KEY.desc()).limit(limit + 1)
        if cursor:
            query = query.where(cursor < _KEY if ascending else cursor > _KEY)
        with self.index_connection() as conn:
            keys = [str(row[0]) for row in conn.execute(query)]
        page = keys[:limit]
        return PaginatedResults(results=page, cursor=page[-1] if page else cursor or "", has_more=len(keys) > limit)
