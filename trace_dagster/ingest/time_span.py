"""The first and the last block time of a version's rows, which queries by time prune versions by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class TimeSpan:
    """The first and the last block_timestamp of the rows that were added."""

    _ends: tuple[datetime, datetime] | None = None
    _is_known: bool = True
    """False if rows have no block_timestamp, or one beyond year 9999: rows of a derived dataset may."""

    @property
    def found(self) -> tuple[datetime, datetime] | None:
        """Return the first and the last time; None without rows, or if some time is not known."""
        return self._ends if self._is_known else None

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        has_times = BLOCK_TIMESTAMP in table.column_names and pa.types.is_timestamp(table[BLOCK_TIMESTAMP].type)
        self._is_known &= has_times
        if self._is_known and table.num_rows:
            self._add(pc.min_max(table[BLOCK_TIMESTAMP].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())).as_py())

    def _add(self, span: dict[str, int | None]) -> None:
        try:
            times = [_EPOCH + timedelta(microseconds=each) for each in span.values() if each is not None]
        except OverflowError:
            self._is_known = False
            return
        if times:
            ends = [*times, *(self._ends or ())]
            self._ends = min(ends), max(ends)
