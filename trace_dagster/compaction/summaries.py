"""Collects the distinct values of a layout file's columns while the file is written."""

from __future__ import annotations

import pyarrow as pa

from trace_dagster.registry.layouts import FileSummary
from trace_dagster.registry.summaries import MAX_VALUES, SUMMARIZED_COLUMNS, summary_of


class FileSummaries:
    """Summaries of one file. A column with too many distinct values is given up, so that memory stays below 100 MiB."""

    def __init__(self) -> None:
        self._values: dict[str, set[bytes]] = {}
        self._given_up: set[str] = set()

    def add(self, table: pa.Table) -> None:
        """Take the next rows of the file."""
        for name in SUMMARIZED_COLUMNS:
            if name in table.column_names and name not in self._given_up:
                self._add_column(name, table[name])

    def finish(self) -> tuple[FileSummary, ...]:
        """Return the summary of each column that has one. Nulls are left out: they are equal to nothing."""
        for known in self._values.values():
            known.discard(None)
        found = (summary_of(name, known) for name, known in self._values.items())
        return tuple(each for each in found if each is not None)

    def _add_column(self, name: str, column: pa.ChunkedArray) -> None:
        known = self._values.setdefault(name, set())
        known.update(column.unique().to_pylist())
        if len(known) > MAX_VALUES + 1:  # one of them may be null
            del self._values[name]
            self._given_up.add(name)
