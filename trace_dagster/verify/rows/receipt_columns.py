"""Take columns from proven receipts, so that Cryo does not fetch every receipt a second time."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.check import extracted
from trace_dagster.verify.commitments.receipts import has_status
from trace_dagster.verify.mismatch import disagrees
from trace_dagster.verify.model import Evidence, Receipt
from trace_dagster.verify.rows.arrow import dense
from trace_dagster.verify.rows.columnwise import same_values
from trace_dagster.verify.rows.comparison import counted, piece_of

_MOST_GAS = 1 << 64
_KEYS = ("block_number", "transaction_index")


def receipts_supply(chain_id: int, span: BlockRange, *, proven: bool, quorum: int) -> bool:
    """Return whether receipts of these blocks supply the columns: they are ``proven`` and hold a status.

    Under a ``quorum`` they do not: other endpoints must give the same rows, not a part of them.
    """
    return proven and quorum == 1 and has_status(chain_id, span)


def engine_columns(dataset: Dataset, stored: Sequence[str], level: str, *, proven: bool) -> tuple[str, ...]:
    """Return the columns that the engine extracts, in schema order: without those that ``proven`` receipts supply."""
    spared = dataset.receipt_columns if proven else ()
    return tuple(name for name in extracted(dataset, stored, level) if name not in spared)


def with_receipt_columns(table: pa.Table, evidence: Evidence, schema: pa.Schema) -> pa.Table:
    """Return the rows of a piece with all columns of ``schema``, adding those that the engine did not extract.

    A row belongs to the receipt at its place. Raise VerificationFailed unless there is one row for each receipt, or if
    a receipt holds a value that no row can hold.
    """
    if schema.names == table.column_names:
        return table
    told = _told(table, evidence)
    return pa.table(
        [told[each.name].cast(each.type) if each.name in told else table[each.name] for each in schema], schema
    )


def _told(table: pa.Table, evidence: Evidence) -> dict[str, pa.Array | pa.ChunkedArray]:
    if evidence.rows is not None:
        proven = evidence.rows.transactions
        if same_values(table, {name: proven[name] for name in _KEYS}):
            return {"gas_used": proven["gas_used"], "success": proven["success"]}
    receipts = _one_for_each_row(table, evidence)
    return {
        "gas_used": pa.array([each.gas_used for each in receipts], pa.uint64()),
        "success": pa.array([each.succeeded for each in receipts], pa.bool_()),
    }


def _one_for_each_row(table: pa.Table, evidence: Evidence) -> list[Receipt]:
    slices = dense(table, piece_of(evidence.headers), "transaction_index")
    receipts = evidence.receipts or [()] * len(slices)
    for header, span, inside in zip(evidence.headers, slices, receipts, strict=True):
        counted(span.stop - span.start, len(inside), "transactions", header.number)
        for each in inside:
            if each.succeeded is None:
                raise VerificationFailed("a receipt holds no status, and rows must", block=header.number)
            if not 0 <= each.gas_used < _MOST_GAS:
                raise disagrees("a receipt's gas used is not that of a block", header.number, "64 bits", each.gas_used)
    return [each for inside in receipts for each in inside]
