"""Reads the rows of a query as Arrow batches, while DuckDB computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

from trace_dagster.errors import TraceError
from trace_dagster.query.session import mapped_error

_READ_ROWS = 2048
"""Rows that are read at once: as many as DuckDB computes at once, so that the first ones come early."""
_KINDS = {
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "IO Error": duckdb.IOException,
    "HTTP Error": duckdb.HTTPException,
}
"""Errors of DuckDB by the beginning of their text: Arrow passes on the text only."""


class ResultRows:
    """The rows of one SELECT. DuckDB computes them when they are read, and a little ahead of that."""

    def __init__(self, relation: duckdb.DuckDBPyRelation) -> None:
        self._relation = relation
        self.types: Sequence[DuckDBPyType] = relation.types

    def read(self, expressions: Sequence[str]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Start to compute the rows; return their schema, and their batches in order.

        The expressions make the columns; the columns of the SELECT are ``#1``, ``#2``, ... in them. Raises, then and
        while the batches are read, Unavailable if the object store does not serve a file, else InvalidInput.
        """
        try:
            reader = self._relation.project(", ".join(expressions)).to_arrow_reader(_READ_ROWS)
        except duckdb.Error as error:
            raise mapped_error(error) from None
        return reader.schema, _batches(reader)


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except duckdb.Error as error:
            raise mapped_error(error) from None
        except (OSError, pa.ArrowException) as error:
            raise _error_of(str(error)) from None
        yield batch


def _error_of(text: str) -> TraceError:
    kind = next((kind for name, kind in _KINDS.items() if text.startswith(name)), duckdb.Error)
    return mapped_error(kind(text))
