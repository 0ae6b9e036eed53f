"""Reading some blocks out of stored Parquet."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from trace_dagster.blocks import BlockRange

READ_ERRORS = (OSError, pa.ArrowException)
"""What Arrow raises for objects that are gone, altered or no Parquet."""


def rows_of(opened: ds.Dataset, blocks: BlockRange, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of ``blocks``, in the order of the files, without what a writer noted beside the schema."""
    number = ds.field("block_number")
    inside = (number >= blocks.start) & (number < blocks.end)
    wanted = list(columns) if columns is not None else None
    return opened.to_table(columns=wanted, filter=inside).replace_schema_metadata(None)
