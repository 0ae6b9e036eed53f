"""The schema of the decoder's rows, and the errors for values that a column cannot hold.

Rows have Cryo's types, except for numbers: these are uint64, or decimal for fees, so that a value beyond Cryo's types
comes out. Evidence of the compiled code has uint64 as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.datasets.lake_types import FEE_DIGITS, FEES
from trace_dagster.errors import ExtractionFailed, TraceError, VerificationFailed
from trace_dagster.verify.mismatch import shortened

_FEE, _NUMBER = pa.decimal128(FEE_DIGITS, 0), pa.uint64()
_LARGEST_FEE, _LARGEST_NUMBER = 10**FEE_DIGITS - 1, (1 << 63) - 1


def row_schema(dataset: Dataset, columns: Sequence[str]) -> pa.Schema:
    """Return the schema of the decoder's rows with ``columns``."""
    fields = dataset.engine_schema(columns)
    return pa.schema([_field(each) for each in fields])


def _field(field: pa.Field) -> pa.Field:
    if not pa.types.is_integer(field.type):
        return field
    return field.with_type(_FEE if field.name in FEES else _NUMBER)


def numbers(
    name: str,
    values: Sequence[int | None],
    blocks: Iterable[int],
    *,
    proven: Callable[[int], bool] = lambda row: True,
) -> pa.Array:
    """Return a column of numbers. ``blocks`` are the block numbers of the rows, for the error.

    ``proven`` returns whether a commitment covers the value of a row. Raises ExtractionFailed if a proven value does
    not fit into the stored column, VerificationFailed if it is only claimed, or negative: a node must not be able to
    end a stream with a value that nothing proves.
    """
    given = [value for value in values if value is not None]
    if given and not (fits(name, min(given)) and fits(name, max(given))):
        for row, (value, block) in enumerate(zip(values, blocks, strict=False)):
            if value is not None and not fits(name, value):
                raise beyond(name, value, block, proven=value > 0 and proven(row))
    return pa.array(values, _FEE if name in FEES else _NUMBER)


def fits(name: str, value: int) -> bool:
    """Return whether a column of numbers can store a value."""
    return 0 <= value <= (_LARGEST_FEE if name in FEES else _LARGEST_NUMBER)


def beyond(name: str, value: int, block: int, *, proven: bool) -> TraceError:
    """Return the error for a number that its stored column cannot hold."""
    limit = f"{FEE_DIGITS} digits" if name in FEES else "63 bits"
    if not proven:
        return VerificationFailed(
            f"the node claims a {name} that is negative or has more than {limit}", block=block, got=shortened(value)
        )
    return ExtractionFailed(
        f"a value does not fit into column {name}, which holds {limit}: list the other columns under `columns` in a"
        " stream with another dataset_key, or start after this block",
        block=block,
        column=name,
        value=shortened(value),
    )
