"""Builds rows of ``blocks``, ``transactions`` and ``logs`` from proven evidence, equal to those of Cryo 0.3.2.

Columns of numbers are wider than Cryo's (:func:`~trace_dagster.decoder.limits.row_schema`). Where Cryo is wrong the
rows are right: before Byzantium ``success`` is null, because receipts have no status there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.datasets.catalogue import NATIVE_LACKS, Dataset
from trace_dagster.datasets.chain import CLAIMED_COLUMNS
from trace_dagster.decoder.limits import numbers, row_schema
from trace_dagster.decoder.uint256 import binary_of_numbers, uint256_columns
from trace_dagster.errors import ExtractionFailed, VerificationFailed
from trace_dagster.verify.commitments.receipts import MOST_TOPICS
from trace_dagster.verify.model import Evidence, Header, Log, Transaction
from trace_dagster.verify.rows.token_transfers import TRANSFER, TRANSFERS

_Columns = dict[str, Any]
"""Arrow columns (arrays or chunked arrays) by name."""

TABLES = ("blocks", "transactions", "logs")
SIZES = ("size", "total_difficulty_binary", "total_difficulty_string", "total_difficulty_f64")
"""Columns of ``blocks`` that no header contains. Evidence carries them as the node claims them."""

_BINARY = pa.large_binary()
_VALUE = frozenset({"value_binary", "value_string", "value_f64"})
_INPUT_COUNTS = frozenset({"n_input_bytes", "n_input_zero_bytes", "n_input_nonzero_bytes"})


def has_rows(dataset_name: str, evidence: Evidence) -> bool:
    """Return whether the evidence holds what the rows of every block are built from, and proves it."""
    if evidence.rows is not None:
        return True
    needed = _NEEDED.get(dataset_name, ("transactions", "receipts"))
    if any(not opened.keys().isdisjoint({"header", *needed}) for opened in evidence.open.values()):
        return False
    return all(getattr(evidence, part) is not None for part in needed)


_NEEDED: dict[str, tuple[str, ...]] = {"blocks": (), **dict.fromkeys(("logs", *TRANSFERS), ("receipts",))}
"""Parts of the evidence beside the headers."""


def table(dataset: Dataset, columns: Sequence[str], chain_id: int, evidence: Evidence) -> pa.Table:
    """Return the rows of all blocks of the evidence, with ``columns``, in the dataset's order.

    Raises ExtractionFailed if a column cannot hold a value or is not in the evidence, VerificationFailed if the node
    left out a value that no commitment covers.
    """
    for name in NATIVE_LACKS.get(dataset.name, ()):
        if name in columns:
            raise ExtractionFailed(
                f"column {name} is not in the evidence: set `engine: cryo`, or leave the column out", column=name
            )
    wanted = frozenset(columns)
    if dataset.name in TRANSFERS:
        found = _transfers(dataset.name, _logs(evidence, wanted))
    else:
        found = _BUILDERS[dataset.name](evidence, wanted)
    rows = len(found["block_number"])
    found["chain_id"] = pa.repeat(pa.scalar(chain_id, pa.uint64()), rows)
    schema = row_schema(dataset, columns)
    return pa.table([found[field.name].cast(field.type) for field in schema], schema)


def _blocks(evidence: Evidence, wanted: frozenset[str]) -> _Columns:
    headers = evidence.headers
    blocks = [header.number for header in headers]
    columns: _Columns = {
        "block_number": _numbers("block_number", blocks, headers),
        "gas_used": _numbers("gas_used", [header.gas_used for header in headers], headers),
        "timestamp": _numbers("timestamp", [header.timestamp for header in headers], headers),
        "base_fee_per_gas": _numbers("base_fee_per_gas", [each.base_fee_per_gas for each in headers], headers),
        **{name: pa.array([read(each) for each in headers], _BINARY) for name, read in _HEADER_BYTES.items()},
    }
    if wanted.intersection(SIZES):
        sizes = [header.size for header in headers]
        columns["size"] = numbers("size", sizes, blocks, proven=lambda row: False)
        columns |= uint256_columns(
            "total_difficulty", binary_of_numbers([header.total_difficulty for header in headers])
        )
    return columns


_HEADER_BYTES: dict[str, Callable[[Header], bytes | None]] = {
    "block_hash": lambda header: header.hash,
    "parent_hash": lambda header: header.parent_hash,
    "author": lambda header: header.author,
    "state_root": lambda header: header.state_root,
    "transactions_root": lambda header: header.transactions_root,
    "receipts_root": lambda header: header.receipts_root,
    "extra_data": lambda header: header.extra_data,
    "logs_bloom": lambda header: header.logs_bloom,
}


def _numbers(name: str, values: Sequence[int | None], headers: Sequence[Header]) -> pa.Array:
    """Return a column of numbers with one row per header."""
    blocks = [header.number for header in headers]
    return numbers(name, values, blocks, proven=lambda row: headers[row].is_proven)


def _transactions(evidence: Evidence, wanted: frozenset[str]) -> _Columns:
    rows = evidence.rows
    if rows is not None:
        columns: _Columns = {name: rows.transactions[name] for name in rows.transactions.column_names}
        ends = rows.transaction_ends
    else:
        columns, ends = _listed_transactions(evidence)
    if "from_address" in wanted and columns["from_address"].null_count:
        raise VerificationFailed("the node left out the sender of a transaction", block=_first_null(columns))
    if wanted & _VALUE:
        columns |= uint256_columns("value", columns["value_binary"])
    if wanted & _INPUT_COUNTS:
        sizes, zeros = pc.binary_length(columns["input"]), pc.count_substring(columns["input"], b"\0")
        columns |= {
            "n_input_bytes": sizes,
            "n_input_zero_bytes": zeros,
            "n_input_nonzero_bytes": pc.subtract(sizes, zeros),
        }
    return columns | _of_blocks(evidence.headers, ends, wanted)


def _first_null(columns: _Columns) -> int:
    row = pc.index(columns["from_address"].is_null(), True).as_py()
    return int(columns["block_number"][row].as_py())


def _logs(evidence: Evidence, wanted: frozenset[str]) -> _Columns:
    rows = evidence.rows
    if rows is not None:
        columns: _Columns = {name: rows.logs[name] for name in rows.logs.column_names}
        return columns | _of_blocks(evidence.headers, rows.log_ends, wanted)
    columns, ends = _listed_logs(evidence, wanted)
    return columns | _of_blocks(evidence.headers, ends, wanted)


def _transfers(dataset_name: str, logs: _Columns) -> _Columns:
    """Return the logs that are token transfers, by the rule of Cryo."""
    topics, size, name = TRANSFERS[dataset_name]
    rows = pa.table(logs)
    has_form = pc.and_(pc.is_valid(rows[f"topic{topics - 1}"]), pc.equal(pc.binary_length(rows["data"]), size))
    if topics < MOST_TOPICS:
        has_form = pc.and_(has_form, pc.is_null(rows[f"topic{topics}"]))
    rows = rows.filter(pc.and_(has_form, pc.fill_null(pc.equal(rows["topic0"], pa.scalar(TRANSFER, _BINARY)), False)))
    columns: _Columns = {each: rows[each] for each in rows.column_names if not each.startswith("topic")}
    return {
        **columns,
        "erc20": rows["address"],
        "from_address": pc.binary_slice(rows["topic1"].cast(pa.binary()), 12, 32),
        "to_address": pc.binary_slice(rows["topic2"].cast(pa.binary()), 12, 32),
        **uint256_columns(name, rows["topic3"] if dataset_name == "erc721_transfers" else rows["data"]),
    }


def _of_blocks(headers: Sequence[Header], ends: Sequence[int], wanted: frozenset[str]) -> _Columns:
    """Return the columns that are equal in all rows of a block; ``ends`` is the row after each block's last."""
    counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    blocks = pa.array([block for block, count in enumerate(counts) for _ in range(count)], pa.int64())
    columns: _Columns = {"block_number": _numbers("block_number", [each.number for each in headers], headers)}
    if "block_hash" in wanted:
        columns["block_hash"] = pa.array([header.hash for header in headers], _BINARY)
    if "timestamp" in wanted:
        columns["timestamp"] = _numbers("timestamp", [header.timestamp for header in headers], headers)
    return {name: values.take(blocks) for name, values in columns.items()}


def _listed_transactions(evidence: Evidence) -> tuple[_Columns, list[int]]:
    """Return the columns of transactions that Python proved, and the row after each block's last."""
    assert evidence.transactions is not None
    assert evidence.receipts is not None
    inside = list(chain.from_iterable(evidence.transactions))
    outcomes = list(chain.from_iterable(evidence.receipts))
    counts = [len(each) for each in evidence.transactions]
    blocks = [header.number for header, count in zip(evidence.headers, counts, strict=True) for _ in range(count)]

    def is_proven(name: str, row: int) -> bool:
        form = inside[row].form
        return form is None or name not in CLAIMED_COLUMNS.get(form, ())

    def column(name: str, read: Callable[[Transaction], int | None]) -> pa.Array:
        return numbers(name, [read(each) for each in inside], blocks, proven=partial(is_proven, name))

    columns: _Columns = {
        "block_number": pa.array(blocks, pa.uint64()),
        "transaction_index": pa.array(list(chain.from_iterable(range(count) for count in counts)), pa.uint64()),
        "transaction_hash": pa.array([each.hash for each in inside], _BINARY),
        "transaction_type": column("transaction_type", lambda each: each.kind),
        "nonce": column("nonce", lambda each: each.nonce),
        "from_address": pa.array([each.sender for each in inside], _BINARY),
        "to_address": pa.array([each.to for each in inside], _BINARY),
        "value_binary": binary_of_numbers([each.value for each in inside]),
        "input": pa.array([each.input for each in inside], _BINARY),
        "gas_limit": column("gas_limit", lambda each: each.gas_limit),
        "gas_price": column("gas_price", lambda each: each.gas_price),
        "max_fee_per_gas": column("max_fee_per_gas", lambda each: each.max_fee_per_gas),
        "max_priority_fee_per_gas": column("max_priority_fee_per_gas", lambda each: each.max_priority_fee_per_gas),
        "success": pa.array([each.succeeded for each in outcomes], pa.bool_()),
        "gas_used": numbers(
            "gas_used", [each.gas_used for each in outcomes], blocks, proven=partial(is_proven, "gas_used")
        ),
    }
    return columns, list(accumulate(counts))


def _listed_logs(evidence: Evidence, wanted: frozenset[str]) -> tuple[_Columns, list[int]]:
    """Return the columns of logs of receipts that Python proved, and the row after each block's last."""
    assert evidence.receipts is not None
    places: list[tuple[int, int, bytes | None]] = []
    logs: list[Log] = []
    ends: list[int] = []
    for block, (header, outcomes) in enumerate(zip(evidence.headers, evidence.receipts, strict=True)):
        known = evidence.transactions[block] if evidence.transactions is not None else None
        first = len(logs)
        for index, receipt in enumerate(outcomes):
            identity = known[index].hash if known is not None else receipt.transaction_hash
            if identity is None and receipt.logs and "transaction_hash" in wanted:
                raise VerificationFailed("the node left out a receipt's transactionHash", block=header.number)
            places += [
                (place, index, identity) for place in range(len(logs) - first, len(logs) - first + len(receipt.logs))
            ]
            logs += receipt.logs
        ends.append(len(logs))
    columns: _Columns = {
        "log_index": pa.array([place for place, _, _ in places], pa.uint64()),
        "transaction_index": pa.array([index for _, index, _ in places], pa.uint64()),
        "transaction_hash": pa.array([identity for _, _, identity in places], _BINARY),
        "address": pa.array([address for address, _, _ in logs], _BINARY),
        **{
            f"topic{at}": pa.array([topics[at] if at < len(topics) else None for _, topics, _ in logs], _BINARY)
            for at in range(MOST_TOPICS)
        },
        "data": pa.array([data for _, _, data in logs], _BINARY),
    }
    return columns, ends


_BUILDERS: dict[str, Callable[[Evidence, frozenset[str]], _Columns]] = {
    "blocks": _blocks,
    "transactions": _transactions,
    "logs": _logs,
}
