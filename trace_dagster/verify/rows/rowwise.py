"""Row-wise comparison of rows with proven evidence, one function per dataset.

Each function takes a table with all rows of the headers' blocks. It raises VerificationFailed with the first
difference, and returns which columns the evidence covers. Columns that the table does not have are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import pyarrow as pa

from trace_dagster.verify.commitments.prove import first_field
from trace_dagster.verify.commitments.receipts import prove_receipts, status
from trace_dagster.verify.model import Header, Receipt, ReceiptFields, Transaction
from trace_dagster.verify.rows.arrow import cumulative, dense, kinds, logs_of, no_more, required, spans
from trace_dagster.verify.rows.balance_diffs import check_balance_diffs
from trace_dagster.verify.rows.calls import check_calls
from trace_dagster.verify.rows.comparison import Comparison, compare_columns, piece_of, require_count
from trace_dagster.verify.rows.shared_columns import check_block_hashes, check_transaction_hashes
from trace_dagster.verify.rows.token_transfers import check_token_transfers
from trace_dagster.verify.rows.uint256_columns import input_counts, uint256_columns

__all__ = [
    "check_balance_diffs",
    "check_block_hashes",
    "check_blocks",
    "check_calls",
    "check_logs",
    "check_token_transfers",
    "check_transaction_hashes",
    "check_transactions",
]

Transactions = Sequence[Sequence[Transaction]]
Receipts = Sequence[Sequence[Receipt]]
Proven = Sequence[Sequence[ReceiptFields]]
"""See :class:`~trace_dagster.verify.model.Evidence`."""


def check_blocks(table: pa.Table, headers: Sequence[Header]) -> Comparison:
    """Compare rows of blocks with proven headers. size and total_difficulty_* are in no header: not compared."""
    spans(table, piece_of(headers), one_each=True)
    expected: dict[str, Sequence[object]] = {
        "block_number": [header.number for header in headers],
        "block_hash": [header.hash for header in headers],
        "parent_hash": [header.parent_hash for header in headers],
        "transactions_root": [header.transactions_root for header in headers],
        "receipts_root": [header.receipts_root for header in headers],
        "logs_bloom": [header.logs_bloom for header in headers],
        "state_root": [header.state_root for header in headers],
        "author": [header.author for header in headers],
        "gas_used": [header.gas_used for header in headers],
        "extra_data": [header.extra_data for header in headers],
        "timestamp": [header.timestamp for header in headers],
        "base_fee_per_gas": [header.base_fee_per_gas for header in headers],
    }
    covered = compare_columns(table, expected, [header.number for header in headers])
    return Comparison(["header hash", "rows equal the header"], covered)


def check_transactions(
    table: pa.Table,
    headers: Sequence[Header],
    transactions: Transactions,
    receipts: Receipts | None,
    *,
    proven: Proven | None = None,
    deep: bool = False,
) -> Comparison:
    """Compare rows with proven transactions; type, success and gas used must give the receipts root.

    from_address is compared with the evidence's sender. It is only covered if ``deep``, which means that senders were
    recovered from signatures. n_rlp_bytes is not compared, because Cryo counts another encoding.
    """
    slices = dense(table, piece_of(headers), "transaction_index")
    for header, span, inside in zip(headers, slices, transactions, strict=True):
        require_count(span.stop - span.start, len(inside), "transactions", header.number)
    flat = [(header, each) for header, inside in zip(headers, transactions, strict=True) for each in inside]
    blocks = [header.number for header, _ in flat]
    covered = compare_columns(table, _transaction_columns(flat), blocks)
    senders = compare_columns(table, _sender_column([each.sender for _, each in flat]), blocks)
    checks = ["transactions root", "rows equal the transactions"]
    if receipts is not None:
        covered |= _check_receipts(table, headers, slices, receipts, proven)
        checks.append("receipts root from rows")
    return Comparison(checks, covered | senders if deep else covered)


def check_logs(
    table: pa.Table,
    headers: Sequence[Header],
    receipts: Receipts,
    transactions: Transactions | None = None,
    *,
    proven: Proven | None = None,
) -> Comparison:
    """Put the rows' logs into the receipts, which must then give the receipts root and the bloom.

    transaction_hash is compared with the proven transactions if there are any. Otherwise it is compared with the
    receipts' claimed hashes, and is not covered.
    """
    piece = piece_of(headers)
    known: Iterable[Sequence[ReceiptFields] | None] = repeat(None, len(headers)) if proven is None else proven
    for header, logs, inside, same in zip(headers, logs_of(table, piece), receipts, known, strict=True):
        prove_receipts(
            [
                (each.kind, first_field(each), each.cumulative_gas, tuple(logs.pop(index, ())))
                for index, each in enumerate(inside)
            ],
            header,
            same,
        )
        no_more(logs, len(inside), header.number)
    columns = {"block_number", "log_index", "transaction_index", "address", "data"}
    done = Comparison(
        ["logs bloom from rows", "receipts root from rows"], columns | {f"topic{index}" for index in range(4)}
    )
    for found in (check_block_hashes(table, headers), check_transaction_hashes(table, headers, transactions, receipts)):
        done.checks += found.checks
        done.covered |= found.covered
    return done


def _sender_column(senders: Sequence[bytes | None]) -> dict[str, Sequence[object]]:
    """Return the expected from_address, or no column if the evidence lacks senders."""
    return {} if None in senders else {"from_address": senders}


def _transaction_columns(flat: Sequence[tuple[Header, Transaction]]) -> dict[str, Sequence[object]]:
    inputs = [each.input for _, each in flat]
    return {
        "block_number": [header.number for header, _ in flat],
        "block_hash": [header.hash for header, _ in flat],
        "timestamp": [header.timestamp for header, _ in flat],
        "transaction_index": list(_positions(flat)),
        "transaction_hash": [each.hash for _, each in flat],
        "nonce": [each.nonce for _, each in flat],
        "to_address": [each.to for _, each in flat],
        "input": inputs,
        "gas_limit": [each.gas_limit for _, each in flat],
        "gas_price": [each.gas_price for _, each in flat],
        "transaction_type": [each.kind for _, each in flat],
        "max_priority_fee_per_gas": [each.max_priority_fee_per_gas for _, each in flat],
        "max_fee_per_gas": [each.max_fee_per_gas for _, each in flat],
        **input_counts(inputs),
        **uint256_columns("value", [each.value for _, each in flat]),
    }


def _positions(flat: Sequence[tuple[Header, Transaction]]) -> Iterator[int]:
    block, position = None, 0
    for header, _ in flat:
        position = position + 1 if header.number == block else 0
        block = header.number
        yield position


def _check_receipts(
    table: pa.Table, headers: Sequence[Header], slices: Sequence[slice], receipts: Receipts, proven: Proven | None
) -> set[str]:
    """Raise unless the rows' type, success and gas_used, with the receipts' logs, give the receipts root."""
    tx_types = kinds(table, required(table, "block_number"))
    success, gas = required(table, "success"), required(table, "gas_used")
    known: Iterable[Sequence[ReceiptFields] | None] = repeat(None, len(headers)) if proven is None else proven
    for header, span, inside, same in zip(headers, slices, receipts, known, strict=True):
        require_count(span.stop - span.start, len(inside), "receipts", header.number)
        rows = zip(tx_types[span], success[span], cumulative(gas[span]), inside, strict=True)
        prove_receipts([_receipt_fields(*row) for row in rows], header, same)
    covered = {"transaction_type", "gas_used"}
    before_status = any(each.post_state is not None for inside in receipts for each in inside)
    return covered if before_status else covered | {"success"}


def _receipt_fields(kind: int, succeeded: bool, total: int, receipt: Receipt) -> ReceiptFields:
    """Return the receipt's hashed fields, with the row's status. Before Byzantium the state root takes its place."""
    return kind, status(succeeded) if receipt.post_state is None else first_field(receipt), total, receipt.logs
