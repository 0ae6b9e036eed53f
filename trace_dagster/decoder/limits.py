"""The errors for values that a column of Cryo's schema cannot hold, and for columns that evidence does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from trace_dagster.errors import ExtractionFailed, TraceError, VerificationFailed
from trace_dagster.verify.mismatch import shortened


def unsigned(
    name: str,
    values: Sequence[int | None],
    kind: pa.DataType,
    blocks: Iterable[int],
    *,
    proven: Callable[[int], bool] = lambda row: True,
) -> pa.Array:
    """Return a column of unsigned numbers. ``blocks`` are the block numbers of the rows, for the error.

    ``proven`` returns whether a commitment covers the value of a row. Raises ExtractionFailed if a proven value has
    more bits than the column, VerificationFailed if it is only claimed, or negative: a node must not be able to end a
    stream with a value that nothing proves.
    """
    try:
        return pa.array(values, kind)
    except (OverflowError, pa.ArrowInvalid):
        for row, (value, block) in enumerate(zip(values, blocks, strict=False)):
            if value is not None and not 0 <= value < 1 << kind.bit_width:
                is_proven = value > 0 and proven(row)
                raise too_large(name, value, kind.bit_width, block, proven=is_proven) from None
        raise


def too_large(name: str, value: int, bits: int, block: int, *, proven: bool) -> TraceError:
    """Return the error for a value that its column cannot hold."""
    if not proven:
        return VerificationFailed(
            f"the node claims a {name} that is negative or has more than {bits} bits", block=block, got=shortened(value)
        )
    return ExtractionFailed(
        f"a value does not fit into column {name}, which has {bits} bits: list the other columns under `columns` in a"
        " stream with another dataset_key, or start after this block",
        block=block,
        column=name,
        value=shortened(value),
    )
