"""Check columns that many datasets have: block_hash, and transaction_hash with transaction_index."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from trace_dagster.verify.mismatch import disagrees
from trace_dagster.verify.model import Header, Receipt, Transaction
from trace_dagster.verify.rows.arrow import column, required
from trace_dagster.verify.rows.comparison import Compared, compare

BLOCK_HASH = "block_hash equals the header's"
BELONGS = "transaction_hash belongs to transaction_index"
"""Names of the checks, for both ways to compare the columns."""


def check_block_hashes(table: pa.Table, headers: Sequence[Header]) -> Compared:
    """Check that each row's block_hash is its block's. A table without the column passes."""
    if "block_hash" not in table.column_names:
        return Compared()
    blocks = required(table, "block_number")
    known = {header.number: header.hash for header in headers}
    expected = [_block_hash(known, block) for block in blocks]
    covered = compare(table, {"block_hash": expected}, blocks)
    return Compared([BLOCK_HASH], covered | {"block_number"})


def check_transaction_hashes(
    table: pa.Table,
    headers: Sequence[Header],
    transactions: Sequence[Sequence[Transaction]] | None,
    receipts: Sequence[Sequence[Receipt]] | None,
    *,
    nulls: bool = False,
) -> Compared:
    """Check that each row's transaction_hash is the one at its transaction_index.

    The column counts as covered if the hashes come from proven transactions; in receipts they are only the node's word.
    Rows with neither value (block rewards in traces) are skipped. ``nulls`` allows a missing hash, because Cryo 0.3.2
    leaves it out of vm_traces.
    """
    hashes = hashes_of(headers, transactions, receipts)
    positions, found = column(table, "transaction_index"), column(table, "transaction_hash")
    if hashes is None or positions is None or found is None:
        return Compared()
    for block, position, got in zip(required(table, "block_number"), positions, found, strict=True):
        if got is None and (position is None or nulls):
            continue
        expected = hashes.get((block, position))
        if (block, position) not in hashes:
            raise disagrees("a row belongs to no transaction of its block", block, "a transaction_index", position)
        if expected is not None and got != expected:
            raise disagrees("transaction_hash is not what the chain says", block, expected, got, transaction=position)
    known = transactions is not None and None not in found
    covered = {"block_number", "transaction_hash", "transaction_index"} if known else set()
    return Compared([BELONGS], covered)


def hashes_of(
    headers: Sequence[Header],
    transactions: Sequence[Sequence[Transaction]] | None,
    receipts: Sequence[Sequence[Receipt]] | None,
) -> dict[tuple[int, int | None], bytes | None] | None:
    """Return transaction hashes by (block, index): proven ones if known, else those in the receipts, else None."""
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
        raise disagrees("a row lies outside the range", block, f"{min(known)} to {max(known)}", block)
    return known[block]
