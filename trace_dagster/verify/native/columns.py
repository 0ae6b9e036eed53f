"""Turns answers into proven headers and Arrow tables with Cryo's column names, by means of the compiled code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trace_dagster.datasets.chain import Chain
from trace_dagster.verify.commitments.rpc_json import Json
from trace_dagster.verify.model import Header, ProvenRows
from trace_dagster.verify.native.blocks import prove, room
from trace_dagster.verify.native.forms import Accepted, accepted
from trace_dagster.verify.native.layout import (
    HEADER_BYTES,
    HEADER_NUMBERS,
    TOPICS_AT,
    TRANSACTION_BYTES,
    TRANSACTION_NUMBERS,
    VALUE_AT,
)

_BINARY = pa.large_binary()
_AT_ONCE = 16 << 20
"""Bytes of answers that one call of the compiled code takes."""
_FILLED = 12
"""Number of output arrays of the compiled code. The other arrays are working buffers."""
_RECEIPT_BYTES, _LOG_BYTES = 512, 256
"""Lower bounds for the text of a receipt (its bloom) and a log (address, topics, hashes of block and transaction)."""


Array = NDArray[Any]


def proven(answers: Sequence[Json], first: int, chain: Chain) -> tuple[list[Header], ProvenRows] | None:
    """Return headers and rows, or None; see :func:`trace_dagster.verify.fast_path.prove_compiled`.

    Columns of both tables: see :class:`~trace_dagster.verify.model.ProvenRows`. Integers are uint64, success is bool,
    all other columns are large_binary.
    """
    if (forms := accepted(chain, first)) is None:
        return None
    blocks = len(answers) // 2
    headers: list[Header] = []
    parts: list[ProvenRows] = []
    for start, end in _cut([len(memoryview(one)) + len(memoryview(two)) for one, two in _pairs(answers)]):
        found = _proven([*answers[start:end], *answers[blocks + start : blocks + end]], first + start, forms)
        if found is None:
            return None
        headers += found[0]
        parts.append(found[1])
    return headers, ProvenRows.concat(parts)


def _pairs(answers: Sequence[Json]) -> Iterator[tuple[Json, Json]]:
    """Yield each block's JSON response with the JSON response of its receipts."""
    blocks = len(answers) // 2
    return zip(answers[:blocks], answers[blocks:], strict=True)


def _cut(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield spans of blocks whose answers have at most _AT_ONCE bytes, or of one block."""
    start = taken = 0
    for block, size in enumerate(sizes):
        if block > start and taken + size > _AT_ONCE:
            yield start, block
            start, taken = block, 0
        taken += size
    yield start, len(sizes)


def _proven(answers: Sequence[Json], first: int, forms: Accepted) -> tuple[list[Header], ProvenRows] | None:
    ends = np.fromiter(accumulate(len(memoryview(answer)) for answer in answers), np.int64, len(answers))
    text = b"".join(answers)
    receipts = len(text) - int(ends[len(answers) // 2 - 1])
    longest = int(np.diff(ends, prepend=0).max())
    arrays = room(len(answers) // 2, receipts // _RECEIPT_BYTES, receipts // _LOG_BYTES, len(text), longest)
    if prove(np.frombuffer(text, np.uint8), ends, first, *forms, *arrays) != len(answers) // 2:
        return None
    (
        header_bytes, header_numbers, extra, transaction_bytes, transaction_numbers, inputs, input_ends,
        log_bytes, log_numbers, data, data_ends, block_ends,
    ) = arrays[:_FILLED]  # fmt: skip
    extra_ends, transaction_ends, log_ends = block_ends.T
    headers = _headers(first, header_bytes, header_numbers, extra, extra_ends.tolist())
    return headers, ProvenRows(
        _transactions(headers, transaction_bytes, transaction_numbers, inputs, input_ends, transaction_ends),
        _logs(headers, transaction_bytes, log_bytes, log_numbers, data, data_ends, transaction_ends, log_ends),
        transaction_ends.tolist(),
        log_ends.tolist(),
    )


def _headers(first: int, rows: Array, numbers: Array, extra: Array, extra_ends: list[int]) -> list[Header]:
    fixed = {name: [each.tobytes() for each in values] for name, values in _split(rows, HEADER_BYTES).items()}
    plain = dict(zip(HEADER_NUMBERS, numbers.T.tolist(), strict=True))
    fees = [fee if given else None for fee, given in zip(plain["base_fee"], plain["has_base_fee"], strict=True)]
    texts = extra[: extra_ends[-1]].tobytes()
    return [
        Header(
            number=first + row,
            hash=fixed["hash"][row],
            parent_hash=fixed["parent_hash"][row],
            transactions_root=fixed["transactions_root"][row],
            receipts_root=fixed["receipts_root"][row],
            logs_bloom=fixed["logs_bloom"][row],
            state_root=fixed["state_root"][row],
            author=fixed["author"][row],
            gas_used=plain["gas_used"][row],
            extra_data=texts[start:end],
            timestamp=plain["timestamp"][row],
            base_fee_per_gas=fees[row],
        )
        for row, (start, end) in enumerate(zip([0, *extra_ends], extra_ends, strict=False))
    ]


def _split(rows: Array, columns: Mapping[str, tuple[str, int]]) -> dict[str, Array]:
    """Return the columns of fixed size that follow each other in each row."""
    widths = [width for _, width in columns.values()]
    ends = accumulate(widths)
    return {name: rows[:, end - width : end] for name, width, end in zip(columns, widths, ends, strict=True)}


def _transactions(
    headers: list[Header], fixed: Array, given: Array, inputs: Array, input_ends: Array, ends: Array
) -> pa.Table:
    count = int(ends[-1])
    numbers = dict(zip(TRANSACTION_NUMBERS, given[:count].T.copy(), strict=True))
    columns = _split(fixed[:count], TRANSACTION_BYTES)
    blocks, places = _places(headers, ends)
    return pa.table(
        {
            "block_number": blocks,
            "transaction_index": places,
            "transaction_hash": _fixed(columns["hash"]),
            "transaction_type": numbers["kind"],
            "nonce": numbers["nonce"],
            "from_address": _fixed(columns["sender"], numbers["has_sender"]),
            "to_address": _fixed(columns["to"], numbers["has_to"]),
            "value_binary": _fixed(fixed[:count, VALUE_AT:]),
            "input": _texts(inputs, input_ends[:count]),
            "gas_limit": numbers["gas_limit"],
            "gas_price": _words(numbers, "gas_price"),
            "max_fee_per_gas": _words(numbers, "cap"),
            "max_priority_fee_per_gas": _words(numbers, "tip"),
            "success": numbers["succeeded"] == 1,
            "gas_used": numbers["gas_used"],
        }
    )


def _words(numbers: Mapping[str, Array], name: str) -> pa.Array:
    """Return a column that is null where the transaction has no such member."""
    return pa.array(numbers[name], mask=numbers[f"has_{name}"] == 0)


def _logs(
    headers: list[Header], transactions: Array, fixed: Array, given: Array, data: Array, data_ends: Array,
    transaction_ends: Array, ends: Array,
) -> pa.Table:  # fmt: skip
    count = int(ends[-1])
    indices, topics = given[:count].T.copy()
    blocks, places = _places(headers, ends)
    firsts = np.concatenate(([0], transaction_ends[:-1])).repeat(np.diff(ends, prepend=0))
    hash_width = TRANSACTION_BYTES["hash"][1]
    return pa.table(
        {
            "block_number": blocks,
            "transaction_index": indices,
            "log_index": places,
            "transaction_hash": _fixed(transactions[firsts + indices.astype(np.int64), :hash_width]),
            "address": _fixed(fixed[:count, :TOPICS_AT]),
            **{
                f"topic{place}": _fixed(fixed[:count, at : at + 32], topics > place)
                for place, at in enumerate(range(TOPICS_AT, fixed.shape[1], 32))
            },
            "data": _texts(data, data_ends[:count]),
        }
    )


def _places(headers: list[Header], ends: Array) -> tuple[Array, Array]:
    """Return (block number, index in the block) of each row."""
    counts = np.diff(ends, prepend=0)
    numbers = np.arange(headers[0].number, headers[0].number + len(headers), dtype=np.uint64)
    return numbers.repeat(counts), np.arange(ends[-1], dtype=np.uint64) - (ends - counts).repeat(counts).astype(
        np.uint64
    )


def _fixed(values: Array, given: Array | None = None) -> pa.Array:
    """Return a copied binary column from rows of bytes, null if ``given`` is 0. A view would keep the whole buffer."""
    count, width = values.shape
    offsets = np.arange(count + 1, dtype=np.int64) * width
    valid = None if given is None else pa.py_buffer(np.packbits(given.astype(np.bool_), bitorder="little"))
    return pa.Array.from_buffers(_BINARY, count, [valid, pa.py_buffer(offsets), pa.py_buffer(values.copy())])


def _texts(data: Array, ends: Array) -> pa.Array:
    """Return a binary column of values of any length."""
    offsets = np.concatenate((np.zeros(1, np.int64), ends))
    values = data[: offsets[-1]].copy()
    return pa.Array.from_buffers(_BINARY, len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(values)])
