"""Columns that receipts tell: where receipts are proven anyway, Cryo need not fetch every one of them once more."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.compare import counted, piece_of
from trace_dagster.verify.equal import same_values
from trace_dagster.verify.evidence import Evidence, Receipt
from trace_dagster.verify.tables import dense

_KEYS = ("block_number", "transaction_index")


def asked(dataset: Dataset, columns: Sequence[str], *, proven: bool, quorum: int) -> tuple[str, ...]:
    """Those of ``columns`` the engine is asked for.

    All of them unless rows are ``proven``, and under a ``quorum``: others must give the same rows, not a part of them.
    """
    spared = dataset.receipt_columns if proven and quorum == 1 else ()
    return tuple(name for name in columns if name not in spared)


def filled(table: pa.Table, evidence: Evidence, schema: pa.Schema) -> pa.Table:
    """The rows of a piece with all columns of ``schema``: those the engine was not asked for, out of the evidence.

    A row is of the receipt that stands at its place. As in Cryo's rows a receipt without a status is no success.
    Raises VerificationFailed where there is not one row for each receipt.
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
        if table.num_rows == proven.num_rows and same_values(table, {name: proven[name] for name in _KEYS}):
            return {"gas_used": proven["gas_used"], "success": proven["success"]}
    receipts = _one_for_each_row(table, evidence)
    try:
        gas = pa.array([each.gas_used for each in receipts], pa.uint64())
    except (pa.ArrowInvalid, OverflowError):
        raise VerificationFailed(
            "receipts tell of gas that no row can hold", block=evidence.headers[0].number
        ) from None
    return {"gas_used": gas, "success": pa.array([bool(each.succeeded) for each in receipts])}


def _one_for_each_row(table: pa.Table, evidence: Evidence) -> list[Receipt]:
    slices = dense(table, piece_of(evidence.headers), "transaction_index")
    receipts = evidence.receipts or [()] * len(slices)
    for header, span, inside in zip(evidence.headers, slices, receipts, strict=True):
        counted(span.stop - span.start, len(inside), "transactions", header.number)
    return [each for inside in receipts for each in inside]
