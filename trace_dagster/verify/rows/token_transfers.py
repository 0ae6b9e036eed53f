"""Compares token transfers with those derived from proven logs by the rule of Cryo 0.3.2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from trace_dagster.verify.model import Header, Log, Receipt, Transaction
from trace_dagster.verify.rows.arrow import spans
from trace_dagster.verify.rows.comparison import Comparison, compare_columns, piece_of, require_count
from trace_dagster.verify.rows.shared_columns import check_transaction_hashes
from trace_dagster.verify.rows.uint256_columns import uint256_columns

TRANSFER = bytes.fromhex("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")
"""keccak("Transfer(address,address,uint256)"): the first topic of both ERC-20 and ERC-721 transfers."""

TRANSFERS = {"erc20_transfers": (3, 32, "value"), "erc721_transfers": (4, 0, "token_id")}
"""Number of topics, bytes of data, and the uint256 column. Tested against the engine with all combinations."""

_Row = tuple[int, bytes, int, int, bytes, bytes, bytes, int]


def check_token_transfers(
    table: pa.Table,
    name: str,
    headers: Sequence[Header],
    receipts: Sequence[Sequence[Receipt]],
    transactions: Sequence[Sequence[Transaction]] | None = None,
) -> Comparison:
    """Raise VerificationFailed unless the rows are exactly the transfers in the proven logs, in order.

    ``name`` is erc20_transfers or erc721_transfers. Both store the token in column ``erc20``; addresses are the last 20
    bytes of a topic. transaction_hash is compared if there are proven transactions.
    """
    slices = spans(table, piece_of(headers))
    rows: list[_Row] = []
    for header, span, inside in zip(headers, slices, receipts, strict=True):
        found = list(_transfers(name, header, inside))
        require_count(span.stop - span.start, len(found), "transfers", header.number)
        rows += found
    covered = compare_columns(table, _columns(name, rows), [row[0] for row in rows])
    hashes = check_transaction_hashes(table, headers, transactions, receipts)
    return Comparison(["rows are the logs' transfers", *hashes.checks], covered | hashes.covered)


def is_transfer(name: str, log: Log) -> bool:
    """Return whether Cryo makes a row of dataset ``name`` from this log."""
    topics, size, _ = TRANSFERS[name]
    return len(log[1]) == topics and log[1][0] == TRANSFER and len(log[2]) == size


def _transfers(name: str, header: Header, receipts: Sequence[Receipt]) -> Iterator[_Row]:
    log_index = 0
    for transaction, receipt in enumerate(receipts):
        for log in receipt.logs:
            if is_transfer(name, log):
                address, topics, data = log
                number = int.from_bytes(topics[3] if name == "erc721_transfers" else data, "big")
                places = (header.number, header.hash, transaction, log_index)
                yield *places, address, topics[1][12:], topics[2][12:], number
            log_index += 1


def _columns(name: str, rows: list[_Row]) -> dict[str, Sequence[object]]:
    names = ("block_number", "block_hash", "transaction_index", "log_index", "erc20", "from_address", "to_address")
    plain: dict[str, Sequence[object]] = {key: [row[at] for row in rows] for at, key in enumerate(names)}
    return {**plain, **uint256_columns(TRANSFERS[name][2], [row[7] for row in rows])}
