"""Checks of columns that many datasets have: block_hash, and transaction_hash with transaction_index."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Receipt, Transaction
from trace_dagster.verify.rows.arrow import column, required
from trace_dagster.verify.rows.comparison import Comparison, compare_columns

BLOCK_HASH = "block_hash equals the header's"
BELONGS = "transaction_hash belongs to transaction_index"
"""Names of checks, the same for the column-wise and the row-wise comparison."""


def check_block_hashes(table: pa.Table, headers: Sequence[Header]) -> Comparison:
    """Raise VerificationFailed unless each row has its block's hash. A table without block_hash passes unchecked."""
    if "block_hash" not in table.column_names:
        return Comparison()
    blocks = required(table, "block_number")
    known = {header.number: header.hash for header in headers}
    expected = [_block_hash(known, block) for block in blocks]
    covered = compare_columns(table, {"block_hash": expected}, blocks)
    return Comparison([BLOCK_HASH], covered | {"block_number"})


def check_transaction_hashes(
    table: pa.Table,
    headers: Sequence[Header],
    transactions: Sequence[Sequence[Transaction]] | None,
    receipts: Sequence[Sequence[Receipt]] | None,
    *,
    nulls: bool = False,
) -> Comparison:
    """Raise VerificationFailed unless each row's transaction_hash is the one at its transaction_index.

    The column is covered if the hashes are those of proven transactions; hashes of receipts are only claims. Rows that
    have neither (block rewards in traces) are skipped. ``nulls`` allows a missing hash: Cryo 0.3.2 writes none into
    vm_traces.
    """
    hashes = hashes_of(headers, transactions, receipts)
    positions, found = column(table, "transaction_index"), column(table, "transaction_hash")
    if hashes is None or positions is None or found is None:
        return Comparison()
    for block, position, got in zip(required(table, "block_number"), positions, found, strict=True):
        if got is None and (position is None or nulls):
            continue
        expected = hashes.get((block, position))
        if (block, position) not in hashes:
            raise mismatch("a row belongs to no transaction of its block", block, "a transaction_index", position)
        if expected is not None and got != expected:
            raise mismatch("transaction_hash is not what the chain says", block, expected, got, transaction=position)
    known = transactions is not None and None not in found
    covered = {"block_number", "transaction_hash", "transaction_index"} if known else set()
    return Comparison([BELONGS], covered)


def hashes_of(
    headers: Sequence[Header],
    transactions: Sequence[Sequence[Transaction]] | None,
    receipts: Sequence[Sequence[Receipt]] | None,
) -> dict[tuple[int, int | None], bytes | None] | None:
    """Return transaction hashes by (block, index): proven ones, else those of receipts, else None for no evidence."""
    if transactions is not None:
        return {
            (header.number, index): each.hash
            for header, inside in zip(headers, transactions, strict=True)
            for index, each in enumerate(inside)
        }
    if receipts is not None:
        return {
            (header.number, index): each.transaction_hash
            for header, inside in zip(headers, receipts, strict=True)
            for index, each in enumerate(inside)
        }
    return None


def _block_hash(known: dict[int, bytes], block: int) -> bytes:
    if block not in known:
        raise mismatch("a row lies outside the range", block, f"{min(known)} to {max(known)}", block)
    return known[block]
