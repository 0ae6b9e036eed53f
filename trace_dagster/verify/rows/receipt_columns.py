"""Columns filled from proven receipts: if the evidence has the receipts, Cryo does not need to fetch them again."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.verify.check import extracted_columns
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Evidence, Receipt
from trace_dagster.verify.rows.arrow import dense
from trace_dagster.verify.rows.columnwise import same_values
from trace_dagster.verify.rows.comparison import piece_of, require_count

_MOST_GAS = 1 << 64
_KEYS = ("block_number", "transaction_index")


def can_fill_from_receipts(*, proven: bool, quorum: int) -> bool:
    """Return whether receipts can fill columns: if they are ``proven``.

    Not with a ``quorum`` above 1, because the other endpoints must return the same whole rows.
    """
    return proven and quorum == 1


def requested_columns(dataset: Dataset, stored: Sequence[str], level: str, *, from_receipts: bool) -> tuple[str, ...]:
    """Return the columns to request from the engine, in schema order.

    These are :func:`~trace_dagster.verify.check.extracted_columns` without those that receipts fill.
    """
    filled = dataset.receipt_columns if from_receipts else ()
    return tuple(name for name in extracted_columns(dataset, stored, level) if name not in filled)


def without_early_status(table: pa.Table, byzantium: int) -> pa.Table:
    """Return rows of transactions without ``success`` in blocks before Byzantium: their receipts have no status.

    Cryo 0.3.2 makes one up there, and so do some nodes.
    """
    if "success" not in table.column_names or not table.num_rows or not byzantium:
        return table
    is_early = pc.less(table["block_number"], byzantium)
    if not pc.any(is_early).as_py():
        return table
    place = table.column_names.index("success")
    column = pc.if_else(is_early, pa.scalar(None, pa.bool_()), table["success"])
    return table.set_column(place, table.schema.field(place), column)


def with_legacy_type(table: pa.Table) -> pa.Table:
    """Return the engine's rows with type 0 where the node leaves the type out (EIP-2718); Cryo 0.3.2 writes a null."""
    if "transaction_type" not in table.column_names or not table["transaction_type"].null_count:
        return table
    place = table.column_names.index("transaction_type")
    return table.set_column(place, table.schema.field(place), pc.fill_null(table["transaction_type"], 0))


def fill_receipt_columns(table: pa.Table, evidence: Evidence, schema: pa.Schema) -> pa.Table:
    """Return the rows of a piece with all columns of ``schema``; gas_used and success come from the evidence.

    ``table`` has the other columns. The row at a transaction index gets the values of the receipt at that index;
    success is null before Byzantium. Raises VerificationFailed unless there is one row per receipt, or if a receipt's
    value does not fit into the column.
    """
    if schema.names == table.column_names:
        return table
    values = _receipt_values(table, evidence)
    return pa.table(
        [values[each.name].cast(each.type) if each.name in values else table[each.name] for each in schema], schema
    )


def _receipt_values(table: pa.Table, evidence: Evidence) -> dict[str, pa.Array | pa.ChunkedArray]:
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
        require_count(span.stop - span.start, len(inside), "transactions", header.number)
        for each in inside:
            if not 0 <= each.gas_used < _MOST_GAS:
                raise mismatch(
                    "a receipt's gas used does not fit into 64 bits", header.number, "64 bits", each.gas_used
                )
    return [each for inside in receipts for each in inside]
