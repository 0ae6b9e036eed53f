"""Catalog a block range from stored Parquet."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from trace_dagster.blocks import BlockRange

READ_ERRORS = (OSError, pa.ArrowException)
"""Errors that Arrow raises for objects that are missing, damaged or no Parquet."""


def rows_of(opened: ds.Dataset, blocks: BlockRange, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a block range in file order, without the schema's metadata. ``columns`` None means all."""
    number = ds.field("block_number")
    inside = (number >= blocks.start) & (number < blocks.end)
    names = list(columns) if columns is not None else None
    return opened.to_table(columns=names, filter=inside).replace_schema_metadata(None)
