"""Row-wise comparison of rows with proven evidence, one function per dataset.

Each function takes a table with all rows of the headers' blocks. It raises VerificationFailed with the first
difference, and returns which columns the evidence covers. Columns that the table does not have are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import pyarrow as pa

from trace_dagster.verify.commitments.receipts import (
    fields_of,
    prove_logs_by_bloom,
    prove_receipts,
    status,
    unknown_type,
)
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Log, Receipt, ReceiptFields, Transaction
from trace_dagster.verify.rows.arrow import dense, kinds, logs_of, needed, no_more, required, spans
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
Proven = Sequence[Sequence[ReceiptFields] | None]
"""See :class:`~trace_dagster.verify.model.Evidence`."""

_ReceiptRow = tuple[int, bool | None, int, Receipt]
"""(transaction type, success, gas used) of a row, and the receipt at its index."""


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
        placed = [(each, tuple(logs.pop(index, ()))) for index, each in enumerate(inside)]
        fields = [fields_of(each, found) for each, found in placed if each.form != "outside_root"]
        prove_receipts(fields, header, same, unknown=unknown_type(inside))
        _check_outside_root(placed, header)
        no_more(logs, len(inside), header.number)
    columns = {"block_number", "log_index", "transaction_index", "address", "data"}
    done = Comparison(
        ["logs bloom from rows", "receipts root from rows"], columns | {f"topic{index}" for index in range(4)}
    )
    for found in (check_block_hashes(table, headers), check_transaction_hashes(table, headers, transactions, receipts)):
        done.checks += found.checks
        done.covered |= found.covered
    return done


def check_blooms(table: pa.Table, headers: Sequence[Header]) -> Comparison:
    """Compare addresses and topics of logs with the blooms of proven headers, where no receipts root can be proven."""
    for header, logs in zip(headers, logs_of(table, piece_of(headers)), strict=True):
        prove_logs_by_bloom([log for inside in logs.values() for log in inside], header)
    done = check_block_hashes(table, headers)
    return Comparison(["logs bloom from rows", *done.checks], done.covered)


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
    """Raise unless the rows' type, success and gas_used, with the receipts' logs, give the receipts root.

    Where a receipt has no status, or none that the root covers, success must be the receipt's: null before Byzantium.
    """
    tx_types = kinds(table, required(table, "block_number"))
    success, gas = needed(table, "success"), required(table, "gas_used")
    known: Iterable[Sequence[ReceiptFields] | None] = repeat(None, len(headers)) if proven is None else proven
    for header, span, inside, same in zip(headers, slices, receipts, known, strict=True):
        require_count(span.stop - span.start, len(inside), "receipts", header.number)
        rows = zip(tx_types[span], success[span], gas[span], inside, strict=True)
        prove_receipts(list(_fields_of_rows(rows, header)), header, same, unknown=unknown_type(inside))
    is_classic = any(each.form == "arbitrum_classic" for inside in receipts for each in inside)
    return set() if is_classic else {"transaction_type", "gas_used", "success"}


def _fields_of_rows(rows: Iterable[_ReceiptRow], header: Header) -> Iterator[ReceiptFields]:
    """Yield the receipts' hashed fields, with type, status and gas of the rows in place of the receipts' own."""
    total = 0
    for kind, succeeded, gas, receipt in rows:
        has_status = receipt.post_state is None and receipt.form in ("standard", "unknown")
        if succeeded is None if has_status else succeeded != receipt.succeeded:
            raise mismatch("success is not what the chain says", header.number, receipt.succeeded, succeeded)
        if receipt.form in ("outside_root", "arbitrum_classic"):
            _require_gas(gas, receipt, header)
        if receipt.form == "arbitrum_classic":
            total = receipt.cumulative_gas
            yield fields_of(receipt, receipt.logs)
        elif receipt.form != "outside_root":
            total += gas
            fields = fields_of(receipt, receipt.logs)._replace(kind=kind, cumulative_gas=total)
            yield fields._replace(first=status(bool(succeeded))) if has_status else fields


def _require_gas(gas: int, receipt: Receipt, header: Header) -> None:
    if gas != receipt.gas_used:
        raise mismatch("gas_used is not what the chain says", header.number, receipt.gas_used, gas)


def _check_outside_root(placed: Sequence[tuple[Receipt, Sequence[Log]]], header: Header) -> None:
    """Compare logs that no root covers with the node's receipts, if those were fetched with logs."""
    for receipt, logs in placed:
        if receipt.form == "outside_root" and receipt.logs and tuple(logs) != receipt.logs:
            raise mismatch(
                "logs of a state-sync transaction are not those of its receipt",
                header.number, f"{len(receipt.logs)} logs", f"{len(logs)} logs",
            )  # fmt: skip
