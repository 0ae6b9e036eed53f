"""Columns that receipts tell: where receipts are proven anyway, Cryo need not fetch every one of them once more."""

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


def are_told(chain_id: int, span: BlockRange, *, proven: bool, quorum: int) -> bool:
    """Whether the receipts of these blocks can tell: they are ``proven`` and hold a status.

    Not under a ``quorum``: others must give the same rows, not a part of them.
    """
    return proven and quorum == 1 and has_status(chain_id, span)


def asked(dataset: Dataset, stored: Sequence[str], level: str, *, told: bool) -> tuple[str, ...]:
    """Columns the engine is asked for so that rows can be checked at a level and stored, in schema order."""
    spared = dataset.receipt_columns if told else ()
    return tuple(name for name in extracted(dataset, stored, level) if name not in spared)


def filled(table: pa.Table, evidence: Evidence, schema: pa.Schema) -> pa.Table:
    """The rows of a piece with all columns of ``schema``: those the engine was not asked for, out of the evidence.

    A row is of the receipt that stands at its place. Raises VerificationFailed where there is not one row for each
    receipt, or a receipt says what no row can hold.
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
