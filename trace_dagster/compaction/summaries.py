"""Collects the distinct values of a layout file's columns while the file is written."""

from __future__ import annotations

import pyarrow as pa

from trace_dagster.registry.layouts import FileSummary
from trace_dagster.registry.summaries import MAX_VALUES, SUMMARIZED_COLUMNS, summary_of

_LEAST_MERGED = 65_536
"""Values that wait before they are merged with those known before."""


class FileSummaries:
    """Summaries of one file. A column with too many distinct values is given up, so that memory stays below 100 MiB."""

    def __init__(self) -> None:
        self._columns: dict[str, _DistinctValues] = {}

    def add(self, table: pa.Table) -> None:
        """Take the next rows of the file."""
        for name in SUMMARIZED_COLUMNS:
            if name in table.column_names:
                self._columns.setdefault(name, _DistinctValues()).add(table[name])

    def finish(self) -> tuple[FileSummary, ...]:
        """Return the summary of each column that has one. Nulls are left out: they are equal to nothing."""
        found = (summary_of(name, column.values()) for name, column in self._columns.items())
        return tuple(each for each in found if each is not None)


class _DistinctValues:
    """The distinct values of a column, merged each time that they have doubled."""

    def __init__(self) -> None:
        self._known: list[pa.Array] = []
        self._merged = 0
        self._waiting = 0

    def add(self, column: pa.ChunkedArray) -> None:
        """Take the next values. Once there are too many, nothing is collected."""
        if self._merged > MAX_VALUES:
            return
        distinct = column.unique().drop_null()
        self._known.append(distinct)
        self._waiting += len(distinct)
        if self._waiting > max(self._merged, _LEAST_MERGED):
            self._merge()

    def values(self) -> list[bytes]:
        """Return the distinct values; more than MAX_VALUES if there are too many."""
        self._merge()
        return [value for part in self._known for value in part.to_pylist()]

    def _merge(self) -> None:
        if self._known:
            self._known = [pa.chunked_array(self._known).unique()]
            self._merged, self._waiting = len(self._known[0]), 0
