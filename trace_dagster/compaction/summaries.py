"""Collects the distinct values of a layout file's columns while the file is written."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from trace_dagster.registry.layouts import FileSummary
from trace_dagster.registry.summaries import MAX_VALUES, SUMMARIZED_COLUMNS, summary_of


class FileSummaries:
    """Summaries of one file. A column with too many distinct values is given up, so that memory stays below 100 MiB."""

    def __init__(self, columns: Collection[str]) -> None:
        """Summarize those of a file's ``columns`` that queries look up by value."""
        self._values: dict[str, set[bytes]] = {name: set() for name in SUMMARIZED_COLUMNS if name in columns}

    def add(self, table: pa.Table) -> None:
        """Take the next rows of the file."""
        for name, known in [*self._values.items()]:
            known.update(table[name].unique().to_pylist())
            if len(known) > MAX_VALUES + 1:  # one of them may be null
                del self._values[name]

    def finish(self) -> tuple[FileSummary, ...]:
        """Return the summary of each column that has one. Nulls are left out: they are equal to nothing."""
        for known in self._values.values():
            known.discard(None)
        found = (summary_of(name, known) for name, known in self._values.items())
        return tuple(each for each in found if each is not None)
