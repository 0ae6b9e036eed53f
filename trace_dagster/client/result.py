"""The result of a query, as Arrow, polars or pandas, whole or in batches."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from trace_dagster.client.transfer import Transfer
from trace_dagster.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_MOST_SHOWN_COLUMNS = 20
_NULLABLE = {
    name: name.replace("i", "I").replace("u", "U")
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}
"""The integers of pandas that know NULL, by Arrow's name."""


class Result:
    """Rows that arrive while they are read. Use it once: as a whole, or in batches.

    ``with`` ends the query if the block is left before the last row. After an answer broke off, or was closed before
    its end, each way to read it raises Unavailable.
    """

    def __init__(self, transfer: Transfer) -> None:
        """Read the columns. Raises Unavailable if the answer breaks off."""
        import pyarrow as pa

        self._transfer = transfer
        self._table: pa.Table | None = None
        self._is_begun = False
        self._body = _ArrowBody(transfer)
        try:
            self._stream = pa.ipc.open_stream(pa.PythonFile(self._body, mode="r"))
        except (pa.ArrowException, OSError):
            raise self._transfer.broken() from None

    @property
    def query_id(self) -> str:
        """The name of the query in the service's log."""
        return self._transfer.query_id

    @property
    def snapshot(self) -> dict[str, Any]:
        """What the rows were made of: heads, cuts, the blocks of each relation, and the cursor of the change log."""
        return self._transfer.snapshot

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns."""
        return self._stream.schema

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._stream.schema.names)

    def arrow(self) -> pa.Table:
        """Return all rows as an Arrow table. Raises Unavailable if the answer breaks off."""
        import pyarrow as pa

        if self._table is None:
            self._table = pa.Table.from_batches(list(self._remaining()), self.schema)
        return self._table

    def pl(self) -> pl.DataFrame:
        """Return all rows as a polars DataFrame."""
        import polars as pl

        found = pl.from_arrow(self.arrow())
        assert isinstance(found, pl.DataFrame)
        return found

    def df(self) -> pd.DataFrame:
        """Return all rows as a pandas DataFrame. Integer columns with NULL have a nullable type, such as Int64.

        Raises InvalidInput if pandas is not installed.
        """
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise InvalidInput("pandas is not installed: install it, or take .pl() or .arrow()") from None
        return _frame(self.arrow())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches, as they arrive: only one is in memory. Raises as :meth:`arrow` does."""
        if self._table is not None:
            return iter(self._table.to_batches())
        return self._remaining()

    def reader(self) -> pa.RecordBatchReader:
        """Return the batches as an Arrow reader, which DuckDB, polars and Parquet writers take."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Let another library take the batches: ``polars.DataFrame(result)``."""
        return self.reader().__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """End the query, if rows are left."""
        self._transfer.close()

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = "" if self._table is None else f" of {self._table.num_rows:,} rows"
        return f"<Result{rows}: {', '.join(self._shown_columns())}; .arrow() .pl() .df() .batches()>"

    def _repr_html_(self) -> str:
        """Show the columns in a notebook. Rows are not fetched by it."""
        cells = "".join(f"<th>{escape(name)}</th>" for name in self._shown_columns())
        return f"<table><tr>{cells}</tr></table><p>{escape(repr(self).partition(';')[2].rstrip('>').strip())}</p>"

    def _shown_columns(self) -> list[str]:
        names = self.columns
        more = len(names) - _MOST_SHOWN_COLUMNS
        return names if more <= 0 else [*names[:_MOST_SHOWN_COLUMNS], f"and {more} more"]

    def _remaining(self) -> Iterator[pa.RecordBatch]:
        self._transfer.check()
        if self._is_begun:
            raise InvalidInput("the rows of this result were read already: keep them, or ask again")
        self._is_begun = True
        return _Batches(self._read(), self._transfer)

    def _read(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        try:
            while True:
                try:
                    batch = self._stream.read_next_batch()
                except StopIteration:
                    break
                except (pa.ArrowException, OSError):
                    raise self._transfer.broken() from None
                yield batch
            if self._body.ran_out or self._body.read(1):
                raise self._transfer.broken()
        finally:
            self._transfer.close()


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return a table for pandas, whose own integers know no NULL: Arrow would make them floats, which are not exact."""
    import pandas as pd
    import pyarrow as pa

    nullable = {i for i, column in enumerate(table.columns) if pa.types.is_integer(column.type) and column.null_count}
    plain = table.select([i for i in range(table.num_columns) if i not in nullable])
    frame = plain.to_pandas(integer_object_nulls=True)  # integers within lists and structs
    for i in sorted(nullable):
        column = table.column(i).to_pandas(types_mapper=lambda kind: pd.api.types.pandas_dtype(_NULLABLE[str(kind)]))
        frame.insert(i, table.column_names[i], column, allow_duplicates=True)
    return frame


class _Batches:
    """The batches of a result. They raise again when they are read after a failure: a generator would just end."""

    def __init__(self, batches: Iterator[pa.RecordBatch], transfer: Transfer) -> None:
        self._batches = batches
        self._transfer = transfer

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        batch = next(self._batches, None)
        if batch is None:
            self._transfer.check()
            raise StopIteration
        return batch


class _ArrowBody:
    """A transfer as a file for Arrow. It knows whether Arrow wanted more than there was.

    Arrow takes the end of a file for the end of the rows. It reads no further than the mark at the end of a whole
    stream, so an answer without that mark has run out.
    """

    closed = False

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self.ran_out = False

    def read(self, size: int) -> bytes:
        data = self._transfer.read(size)
        self.ran_out = self.ran_out or len(data) < size
        return data

    def close(self) -> None:
        """Arrow closes its files; the result ends the transfer itself."""
