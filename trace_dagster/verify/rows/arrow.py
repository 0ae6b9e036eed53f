"""Read Arrow tables, stored or freshly extracted, into Python values and evidence.

The order of columns, dictionaries and chunks do not matter. A missing column, or a null or a value of the wrong size
where none is allowed, raises VerificationFailed. Rows are grouped by the blocks of a BlockRange and must be in block
order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.commitments.hex import KINDS, unknown_kind
from trace_dagster.verify.commitments.receipts import MOST_TOPICS
from trace_dagster.verify.mismatch import disagrees
from trace_dagster.verify.model import Header, Log, Receipt, Transaction

_TOPICS = [f"topic{index}" for index in range(MOST_TOPICS)]


HEADER_COLUMNS = ("block_number", "block_hash", "parent_hash", "transactions_root", "receipts_root", "logs_bloom")
RECEIPT_COLUMNS = (
    "block_number", "transaction_index", "transaction_hash", "transaction_type", "success", "gas_used",
)  # fmt: skip
TRANSACTION_COLUMNS = (
    *RECEIPT_COLUMNS, "from_address", "to_address", "value_binary", "nonce", "gas_limit", "gas_price",
    "max_fee_per_gas", "max_priority_fee_per_gas", "input",
)  # fmt: skip
"""Columns that stored rows need to replace a node's answer."""


def headers_of(blocks: pa.Table, piece: BlockRange) -> list[Header]:
    """Return one header per block of the piece, from rows of dataset ``blocks`` with HEADER_COLUMNS."""
    spans(blocks, piece, one_each=True)
    columns = [
        required(blocks, "block_number"),
        *[fixed(blocks, name, 32) for name in ("block_hash", "parent_hash", "transactions_root", "receipts_root")],
        fixed(blocks, "logs_bloom", 256),
        *[
            column(blocks, name) or [None] * blocks.num_rows
            for name in ("state_root", "author", "gas_used", "extra_data", "timestamp", "base_fee_per_gas")
        ],
    ]
    return [Header(*values) for values in zip(*columns, strict=True)]


def transactions_of(transactions: pa.Table, piece: BlockRange) -> list[list[Transaction]]:
    """Return the transactions of each block, from rows of dataset ``transactions``. Senders are not proven."""
    numbers = required(transactions, "block_number")
    columns = [
        fixed(transactions, "transaction_hash", 32),
        kinds(transactions, numbers),
        column(transactions, "from_address") or [None] * transactions.num_rows,
        needed(transactions, "to_address"),
        [int.from_bytes(value, "big") for value in fixed(transactions, "value_binary", 32)],
        required(transactions, "nonce"),
        required(transactions, "gas_limit"),
        required(transactions, "gas_price"),
        needed(transactions, "max_fee_per_gas"),
        needed(transactions, "max_priority_fee_per_gas"),
        required(transactions, "input"),
    ]
    found = [Transaction(*values) for values in zip(*columns, strict=True)]
    return [found[span] for span in dense(transactions, piece, "transaction_index")]


def receipts_of_tables(transactions: pa.Table, logs: pa.Table | None, piece: BlockRange) -> list[list[Receipt]]:
    """Return the receipts of each block, from rows of dataset ``transactions`` and, if given, of dataset ``logs``."""
    numbers = required(transactions, "block_number")
    of = kinds(transactions, numbers)
    success, gas = required(transactions, "success"), required(transactions, "gas_used")
    hashes = column(transactions, "transaction_hash") or [None] * transactions.num_rows
    blocks_logs = logs_of(logs, piece) if logs is not None else [{} for _ in range(len(piece))]
    found: list[list[Receipt]] = []
    for span, by_transaction in zip(dense(transactions, piece, "transaction_index"), blocks_logs, strict=True):
        sums = cumulative(gas[span])
        receipts = [
            Receipt(of[row], success[row], total, gas[row], hashes[row], tuple(by_transaction.pop(index, ())))
            for index, (row, total) in enumerate(zip(range(span.start, span.stop), sums, strict=True))
        ]
        no_more(by_transaction, len(receipts), numbers[span.start] if receipts else piece.start + len(found))
        found.append(receipts)
    return found


def logs_of(logs: pa.Table, piece: BlockRange) -> list[dict[int, list[Log]]]:
    """Return each block's logs by transaction index.

    Raise VerificationFailed unless log_index counts from 0 and the transactions come in order.
    """
    numbers = required(logs, "block_number")
    positions = required(logs, "transaction_index")
    addresses, data = fixed(logs, "address", 20), required(logs, "data")
    topics = _topics(logs, numbers)
    found = []
    for span in dense(logs, piece, "log_index"):
        by_transaction: dict[int, list[Log]] = {}
        for row in range(span.start, span.stop):
            if row > span.start and positions[row] < positions[row - 1]:
                raise disagrees(
                    "logs are not in order of their transactions", numbers[row], positions[row - 1], positions[row]
                )
            by_transaction.setdefault(positions[row], []).append((addresses[row], topics[row], data[row]))
        found.append(by_transaction)
    return found


def no_more(by_transaction: dict[int, list[Log]], count: int, block: int) -> None:
    """Raise VerificationFailed if logs are left after every receipt took its own: they belong to no transaction."""
    for index in by_transaction:
        raise disagrees("a log belongs to no transaction of its block", block, f"below {count}", index)


def cumulative(gas: Sequence[int]) -> list[int]:
    """Return the gas used up to and including each transaction."""
    sums, total = [], 0
    for used in gas:
        total += used
        sums.append(total)
    return sums


def spans(table: pa.Table, piece: BlockRange, *, one_each: bool = False) -> list[slice]:
    """Return the rows of each block of the piece as a slice; ``one_each`` requires exactly one row per block."""
    runs = pc.run_end_encode(present(table, "block_number"))
    numbers, ends = runs.values.to_pylist(), runs.run_ends.to_pylist()
    for before, after in pairwise(numbers):
        if after < before:
            raise VerificationFailed("rows are not in block order", block=after)
    if numbers and (numbers[0] < piece.start or numbers[-1] >= piece.end):
        wrong = numbers[0] if numbers[0] < piece.start else numbers[-1]
        raise VerificationFailed("a row lies outside the range", block=wrong, range=piece)
    end_of = dict(zip(numbers, ends, strict=True))
    found, stop = [], 0
    for block in range(piece.start, piece.end):
        start, stop = stop, end_of.get(block, stop)
        found.append(slice(start, stop))
    for block, span in enumerate(found, piece.start):
        if one_each and span.stop - span.start != 1:
            raise disagrees("a block is missing or doubled", block, "1 row", f"{span.stop - span.start} rows")
    return found


def dense(table: pa.Table, piece: BlockRange, index: str) -> list[slice]:
    """Return :func:`spans`, after :func:`require_dense`."""
    found = spans(table, piece)
    require_dense(table, found, index)
    return found


def require_dense(table: pa.Table, found: Sequence[slice], index: str) -> None:
    """Raise VerificationFailed unless ``index`` counts 0, 1, 2, ... in each block."""
    positions = present(table, index)
    expected = pa.array(chain.from_iterable(range(span.stop - span.start) for span in found), pa.int64())
    row = unequal(positions, expected)
    if row is not None:
        block = block_at(table, row)
        raise disagrees(f"{index} does not count 0, 1, 2, ...", block, expected[row].as_py(), positions[row].as_py())


def unequal(left: pa.Array, right: pa.Array | int) -> int | None:
    """Return the first row where two columns without nulls differ. Raise VerificationFailed if their types do not
    compare.
    """
    try:
        return first(pc.not_equal(left, right))
    except pa.ArrowException as error:
        raise VerificationFailed("a column holds values of another kind", type=left.type, reason=error) from None


def first(wrong: pa.BooleanArray | pa.ChunkedArray) -> int | None:
    """Return the first row that is true, or None."""
    row: int = pc.index(wrong, True).as_py()
    return None if row < 0 else row


def block_at(table: pa.Table, row: int) -> int:
    """Return the block of a row; -1 if its block_number is null."""
    found: int | None = plain(table, "block_number")[row].as_py()
    return -1 if found is None else found


def kinds(table: pa.Table, numbers: Sequence[int]) -> list[int]:
    """Return the transaction types. Raise UnknownFormat for a type that this version does not know."""
    found = required(table, "transaction_type")
    for kind, block in zip(found, numbers, strict=True):
        if kind not in KINDS:
            raise unknown_kind(kind, block)
    return found


def column(table: pa.Table, name: str) -> list[Any] | None:
    """Return a column's values, or None if the table has no such column."""
    return plain(table, name).to_pylist() if name in table.column_names else None


def plain(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column without its dictionary."""
    found = table[name]
    return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found


def needed(table: pa.Table, name: str) -> list[Any]:
    """Return the values of a column that must exist; they may be null."""
    return _given(table, name).to_pylist()  # type: ignore[no-any-return]


def required(table: pa.Table, name: str) -> list[Any]:
    """Return the values of a column that must exist and have no nulls."""
    return present(table, name).to_pylist()  # type: ignore[no-any-return]


def present(table: pa.Table, name: str) -> pa.Array:
    """Return a column that must exist and have no nulls, without its dictionary and in one chunk."""
    found = _given(table, name).combine_chunks()
    row = first(found.is_null())
    if row is not None:
        raise VerificationFailed("a row has a null where none can be", column=name, block=block_at(table, row))
    return found


def _given(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise VerificationFailed("the rows lack a column the proof needs", column=name)
    return plain(table, name)


def fixed(table: pa.Table, name: str, size: int) -> list[bytes]:
    """Return a column of byte strings of ``size`` bytes, without nulls."""
    found = required(table, name)
    _check_size(table, name, size, found)
    return found


def _check_size(table: pa.Table, name: str, size: int, found: list[Any]) -> None:
    """Raise VerificationFailed for another length, which could move bytes between fields under the same hash."""
    values = plain(table, name)
    if not _is_binary(values.type):
        raise VerificationFailed("a column is not of bytes", column=name, type=values.type)
    span = pc.min_max(pc.binary_length(values)).as_py()
    if {span["min"], span["max"]} - {size, None}:
        for row, value in enumerate(found):
            if value is not None and len(value) != size:
                raise disagrees(f"{name} has the wrong length", block_at(table, row), f"{size} bytes", value)


def _topics(logs: pa.Table, numbers: Sequence[int]) -> list[tuple[bytes, ...]]:
    columns = [needed(logs, name) for name in _TOPICS]
    for name, values in zip(_TOPICS, columns, strict=True):
        _check_size(logs, name, 32, values)
    found = []
    for block, row in zip(numbers, zip(*columns, strict=True), strict=True):
        given = tuple([topic for topic in row if topic is not None])
        if row[: len(given)] != given:
            raise VerificationFailed("a log has a topic after a missing one", block=block)
        found.append(given)
    return found


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))
