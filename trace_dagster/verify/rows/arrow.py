"""Reads Arrow tables, stored or newly extracted, into Python values and evidence.

Columns have the types of the engine, of the decoder or of the lake (:func:`plain`). The order of columns, dictionary
encoding and chunks do not matter. Rows must be in block order. A missing column, a forbidden null, a negative number or
a value of the wrong size raises VerificationFailed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import MOST_TYPES, Chain
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.commitments.receipts import MOST_TOPICS
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Log, Receipt, Transaction
from trace_dagster.verify.rows.forms import receipt_form, transaction_form

_TOPICS = [f"topic{index}" for index in range(MOST_TOPICS)]


HEADER_COLUMNS = (
    "block_number", "block_hash", "parent_hash", "transactions_root", "receipts_root", "logs_bloom", "timestamp",
)  # fmt: skip
RECEIPT_COLUMNS = (
    "block_number", "transaction_index", "transaction_hash", "transaction_type", "success", "gas_used",
)  # fmt: skip
TRANSACTION_COLUMNS = (
    *RECEIPT_COLUMNS, "from_address", "to_address", "value_binary", "nonce", "gas_limit", "gas_price",
    "max_fee_per_gas", "max_priority_fee_per_gas", "input",
)  # fmt: skip
"""Columns that stored rows need so that they can replace a node's answer as evidence."""


def headers_of(blocks: pa.Table, piece: BlockRange) -> list[Header]:
    """Return one header per block of the piece, from rows of dataset blocks.

    ``blocks`` has :data:`HEADER_COLUMNS`; state_root, author, gas_used, extra_data, timestamp and base_fee_per_gas may
    be missing. Raises VerificationFailed unless there is exactly one row per block.
    """
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


def transactions_of(transactions: pa.Table, piece: BlockRange, chain: Chain) -> list[list[Transaction]]:
    """Return the transactions of each block, from rows of dataset transactions with :data:`TRANSACTION_COLUMNS`.

    Senders are taken from the rows (None without column from_address). Raises VerificationFailed if transaction_index
    does not count 0, 1, 2, ... in each block, UnknownForm for a type that the chain's row lacks.
    """
    numbers = required(transactions, "block_number")
    tx_types = kinds(transactions, numbers)
    senders = column(transactions, "from_address") or [None] * transactions.num_rows
    columns: list[list[Any]] = [
        fixed(transactions, "transaction_hash", 32),
        tx_types,
        senders,
        needed(transactions, "to_address"),
        [int.from_bytes(value, "big") for value in fixed(transactions, "value_binary", 32)],
        required(transactions, "nonce"),
        required(transactions, "gas_limit"),
        needed(transactions, "gas_price"),
        needed(transactions, "max_fee_per_gas"),
        needed(transactions, "max_priority_fee_per_gas"),
        required(transactions, "input"),
    ]
    forms = [
        transaction_form(chain, kind, sender, block)
        for kind, sender, block in zip(tx_types, senders, numbers, strict=True)
    ]
    found = [Transaction(*values) for values in zip(*columns, forms, strict=True)]
    return [found[span] for span in dense(transactions, piece, "transaction_index")]


def receipts_of_tables(
    transactions: pa.Table, logs: pa.Table | None, piece: BlockRange, chain: Chain
) -> list[list[Receipt]]:
    """Return the receipts of each block, from rows of dataset transactions and, if given, of dataset logs.

    ``transactions`` has :data:`RECEIPT_COLUMNS` (transaction_hash is optional); ``logs`` has block_number,
    transaction_index, log_index, address, topic0 to topic3 and data. Without ``logs`` receipts have no logs. Raises
    VerificationFailed if an index does not count 0, 1, 2, ... or if a log belongs to no transaction, UnknownForm if the
    rows do not hold all that a receipt of one of their types consists of. ``success`` is null before Byzantium; such
    receipts lack the state root that their encoding starts with.
    """
    numbers = required(transactions, "block_number")
    tx_types = kinds(transactions, numbers)
    success, gas = needed(transactions, "success"), required(transactions, "gas_used")
    nonces = column(transactions, "nonce") or [None] * transactions.num_rows
    senders = column(transactions, "from_address") or [None] * transactions.num_rows
    hashes = column(transactions, "transaction_hash") or [None] * transactions.num_rows
    blocks_logs = logs_of(logs, piece) if logs is not None else [{} for _ in range(len(piece))]
    found: list[list[Receipt]] = []
    for span, by_transaction in zip(dense(transactions, piece, "transaction_index"), blocks_logs, strict=True):
        sums = cumulative(gas[span])
        receipts = [
            Receipt(
                tx_types[row],
                success[row],
                total,
                gas[row],
                hashes[row],
                tuple(by_transaction.pop(index, ())),
                None,
                *receipt_form(chain, tx_types[row], nonces[row], senders[row], numbers[row]),
            )
            for index, (row, total) in enumerate(zip(range(span.start, span.stop), sums, strict=True))
        ]
        no_more(by_transaction, len(receipts), numbers[span.start] if receipts else piece.start + len(found))
        found.append(receipts)
    return found


def logs_of(logs: pa.Table, piece: BlockRange) -> list[dict[int, list[Log]]]:
    """Return for each block its logs by transaction index.

    Raises VerificationFailed unless log_index counts from 0 in each block and logs are in order of transactions.
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
                raise mismatch(
                    "logs are not in order of their transactions", numbers[row], positions[row - 1], positions[row]
                )
            by_transaction.setdefault(positions[row], []).append((addresses[row], topics[row], data[row]))
        found.append(by_transaction)
    return found


def no_more(by_transaction: dict[int, list[Log]], count: int, block: int) -> None:
    """Raise VerificationFailed if logs are left after every receipt of the block took its own."""
    for index in by_transaction:
        raise mismatch("a log belongs to no transaction of its block", block, f"below {count}", index)


def cumulative(gas: Sequence[int]) -> list[int]:
    """Return the running sum of ``gas``, including each transaction itself."""
    sums, total = [], 0
    for used in gas:
        total += used
        sums.append(total)
    return sums


def spans(table: pa.Table, piece: BlockRange, *, one_each: bool = False) -> list[slice]:
    """Return the rows of each block of the piece.

    Raises VerificationFailed if rows are not in block order or outside the piece, or if ``one_each`` is set and a block
    does not have exactly one row.
    """
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
            raise mismatch("a block is missing or doubled", block, "1 row", f"{span.stop - span.start} rows")
    return found


def dense(table: pa.Table, piece: BlockRange, index: str) -> list[slice]:
    """Return :func:`spans`. Raises VerificationFailed unless column ``index`` counts 0, 1, 2, ... in each block."""
    found = spans(table, piece)
    require_dense(table, found, index)
    return found


def require_dense(table: pa.Table, found: Sequence[slice], index: str) -> None:
    """Raise VerificationFailed unless column ``index`` counts 0, 1, 2, ... in each of these spans."""
    positions = present(table, index)
    expected = pa.array(chain.from_iterable(range(span.stop - span.start) for span in found), pa.int64())
    row = unequal(positions, expected)
    if row is not None:
        block = block_at(table, row)
        raise mismatch(f"{index} does not count 0, 1, 2, ...", block, expected[row].as_py(), positions[row].as_py())


def unequal(left: pa.Array, right: pa.Array | int) -> int | None:
    """Return the first row in which two columns without nulls differ, or None.

    Raises VerificationFailed if their types cannot be compared.
    """
    try:
        return first(pc.not_equal(left, right))
    except pa.ArrowException as error:
        raise VerificationFailed("a column holds values of another kind", type=left.type, reason=error) from None


def first(wrong: pa.BooleanArray | pa.ChunkedArray) -> int | None:
    """Return the first row that is True, or None."""
    row: int = pc.index(wrong, True).as_py()
    return None if row < 0 else row


def block_at(table: pa.Table, row: int) -> int:
    """Return the block number of a row, or -1 if the row has none."""
    found: int | None = plain(table, "block_number")[row].as_py()
    return -1 if found is None else found


def kinds(table: pa.Table, numbers: Sequence[int]) -> list[int]:
    """Return the transaction type of each row. Raises VerificationFailed for a number that is no type (EIP-2718)."""
    found = required(table, "transaction_type")
    for kind, block in zip(found, numbers, strict=True):
        if not 0 <= kind < MOST_TYPES:
            raise mismatch("a transaction's type is no type", block, f"below {MOST_TYPES}", kind)
    return found


def column(table: pa.Table, name: str) -> list[Any] | None:
    """Return a column's values, or None if the table has no such column."""
    return _values(plain(table, name)) if name in table.column_names else None


def plain(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column with a type that the engine's rows may be compared with, whatever its type is in the table.

    Bytes of fixed size become large_binary, decimal numbers uint64, dictionaries their values. Decimal numbers beyond
    uint64 stay decimal. Raises VerificationFailed if a stored number is negative: no column has such numbers.
    """
    found = table[name]
    if pa.types.is_dictionary(found.type):
        found = found.cast(found.type.value_type)
    read = _READERS.get(found.type.id)
    return read(table, name, found) if read else found


def require_unsigned(table: pa.Table) -> None:
    """Raise VerificationFailed if a number of the table is negative."""
    for field in table.schema:
        if pa.types.is_int64(field.type) or pa.types.is_decimal(field.type):
            _require_none_negative(table, field.name, table[field.name])


def _of_any_size(table: pa.Table, name: str, found: pa.ChunkedArray) -> pa.ChunkedArray:
    return found.cast(pa.large_binary())


def _integers(table: pa.Table, name: str, found: pa.ChunkedArray) -> pa.ChunkedArray:
    _require_none_negative(table, name, found)
    try:
        return found.cast(pa.uint64())
    except pa.ArrowInvalid:
        return found


def _signed(table: pa.Table, name: str, found: pa.ChunkedArray) -> pa.ChunkedArray:
    _require_none_negative(table, name, found)
    return found


def _require_none_negative(table: pa.Table, name: str, found: pa.ChunkedArray) -> None:
    row = first(pc.less(found, pa.scalar(0, found.type)))
    if row is not None:
        block = table["block_number"][row].as_py() if "block_number" in table.column_names else -1
        raise VerificationFailed("a number is negative", column=name, block=block, got=found[row].as_py())


_READERS: dict[int, Callable[[pa.Table, str, pa.ChunkedArray], pa.ChunkedArray]] = {
    pa.lib.Type_FIXED_SIZE_BINARY: _of_any_size,
    pa.lib.Type_DECIMAL128: _integers,
    pa.lib.Type_INT64: _signed,
}
"""How :func:`plain` reads the types that the engine does not use, by Arrow's number of the type."""


def _values(found: pa.ChunkedArray) -> list[Any]:
    """Return a column's values. Decimal numbers become integers."""
    values: list[Any] = found.to_pylist()
    if pa.types.is_decimal(found.type):
        return [None if value is None else int(value) for value in values]
    return values


def needed(table: pa.Table, name: str) -> list[Any]:
    """Return a column's values, which may be null. Raises VerificationFailed if the column is missing."""
    return _values(_given(table, name))


def required(table: pa.Table, name: str) -> list[Any]:
    """Return a column's values. Raises VerificationFailed if it is missing or has a null."""
    return _values(present(table, name))


def present(table: pa.Table, name: str) -> pa.Array:
    """Return a column as one decoded array. Raises VerificationFailed if it is missing or has a null."""
    found = _given(table, name).combine_chunks()
    row = first(found.is_null())
    if row is not None:
        raise VerificationFailed(
            "a row has a null in a column that allows none", column=name, block=block_at(table, row)
        )
    return found


def _given(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise VerificationFailed("the rows lack a column the proof needs", column=name)
    return plain(table, name)


def fixed(table: pa.Table, name: str, size: int) -> list[bytes]:
    """Return a column's values. Raises VerificationFailed unless all are byte strings of ``size`` bytes."""
    found = required(table, name)
    _check_size(table, name, size, found)
    return found


def _check_size(table: pa.Table, name: str, size: int, found: list[Any]) -> None:
    """Raise on another length, because it could move bytes between fields under the same hash."""
    values = plain(table, name)
    if not _is_binary(values.type):
        raise VerificationFailed("a column is not of bytes", column=name, type=values.type)
    span = pc.min_max(pc.binary_length(values)).as_py()
    if {span["min"], span["max"]} - {size, None}:
        for row, value in enumerate(found):
            if value is not None and len(value) != size:
                raise mismatch(f"{name} has the wrong length", block_at(table, row), f"{size} bytes", value)


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
