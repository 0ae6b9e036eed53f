"""Reads blocks and receipts from JSON text into columns, and proves each block by the hash and roots of its header.

The encodings are those of ``prove.py``, ``envelopes.py`` and ``receipts.py`` in ``verify/commitments``; ``forms.py``
has them as tables. ``scan.py`` finds the members, then they are read in the order of those tables.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trace_dagster.verify.native.encode import begin, close, decode, put_bytes, put_number, word
from trace_dagster.verify.native.forms import (
    HEADER,
    HEADER_ALWAYS,
    HEADER_ENCODINGS,
    HEADER_FORMS,
    LOG,
    NO_MEMBER,
    NUMBER,
    TRANSACTION,
)
from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.keccak import keccak
from trace_dagster.verify.native.layout import (
    BASE_FEE_OF,
    BLOOM_AT,
    HAS_BASE_FEE,
    HASH_AT,
    HEADER_BYTES,
    HEADER_COLUMNS,
    HEADER_NUMBERS,
    LOG_NUMBERS,
    MOST_TOPICS,
    RECEIPTS_ROOT_AT,
    TOPICS_AT,
    TRANSACTION_NUMBERS,
    TRANSACTIONS_ROOT_AT,
    VALUE_AT,
    read_bytes,
    same,
)
from trace_dagster.verify.native.receipts import BLOOM_BYTES, read_receipts
from trace_dagster.verify.native.scan import deep, slotted, space
from trace_dagster.verify.native.transactions import INNERMOST, TRANSACTION_NAMES, TRANSACTION_SLOTS, read_transactions
from trace_dagster.verify.native.trie import DEEPEST, list_root
from trace_dagster.verify.native.types import ByteRows, Bytes, Ends, Found, Numbers, Objects, Places, Text, Words

_MOST_EXTRA = 256
_SPARE = 1 << 16
_WORD = 8
_NAMES, _SLOTS = slotted(HEADER)
_NUMBER, _GAS_USED, _TIME, _EXTRA, _BASE_FEE, _HASH, _TRANSACTIONS = (
    HEADER.index(name)
    for name in ("number", "gasUsed", "timestamp", "extraData", "baseFeePerGas", "hash", "transactions")
)


@native
def _put_header(text: Text, found: Found, form: int, out: Bytes) -> int:
    """Write the bytes whose keccak is the block's hash."""
    at, missing = begin(out, 0), False
    for place in range(HEADER_FORMS.shape[1]):
        which = HEADER_FORMS[form, place]
        if which == NO_MEMBER:
            break
        start, end, size = found[which, 0], found[which, 1], HEADER_ENCODINGS[which]
        if start < 0:
            missing = True
            if place < HEADER_ALWAYS[form]:
                return -1
        elif missing:
            return -1  # a gap before later fields: a value could pass for another field
        elif size == NUMBER:
            at = put_number(text, start, end, out, at)
        else:
            at = put_bytes(text, start, end, size, out, at)
    return close(out, 0, at)


@native
def _read_header(
    text: Text, found: Found, number: int, form: int, row: Bytes, numbers: Words, out: Bytes, state: Words
) -> bool:
    """Read the header's columns. False unless it has the number and gives its own hash."""
    numbers[HAS_BASE_FEE] = 1 if found[_BASE_FEE, 0] >= 0 else 0
    numbers[BASE_FEE_OF] = 0
    if (
        not word(text, found[_NUMBER, 0], found[_NUMBER, 1], state, 0)
        or state[0] != np.uint64(number)
        or not word(text, found[_GAS_USED, 0], found[_GAS_USED, 1], numbers, 0)
        or not word(text, found[_TIME, 0], found[_TIME, 1], numbers, 1)
        or (numbers[HAS_BASE_FEE] and not word(text, found[_BASE_FEE, 0], found[_BASE_FEE, 1], numbers, BASE_FEE_OF))
        or found[_HASH, 0] < 0
        or not read_bytes(text, found, HEADER_COLUMNS, row)
    ):
        return False
    at = _put_header(text, found, form, out)
    if at < 0:
        return False
    keccak(out, 0, at, out, at, state)
    return same(out, at, row, HASH_AT, 32)


@native
def prove(
    text: Text, ends: Ends, first: int, header_form: int, forms: Ends,
    header_bytes: ByteRows, header_numbers: Numbers, extra: Bytes,
    transaction_bytes: ByteRows, transaction_numbers: Numbers, inputs: Bytes, input_ends: Places,
    log_bytes: ByteRows, log_numbers: Numbers, data: Bytes, data_ends: Places,
    block_ends: Found, transactions: Objects, logs: Objects, items: Bytes, item_ends: Places, work: Bytes,
    found: Found, inner: Found, frames: Found, state: Words, bloom: Bytes,
) -> int:  # fmt: skip
    """Return how many of the blocks from number ``first`` on are proven, up to the first that is not.

    ``text`` has the answers of all blocks, then those of their receipts; ``ends`` is the end of each. ``header_form``
    and ``forms`` are what :func:`~trace_dagster.verify.native.forms.accepted` returns. The columns of
    proven blocks are filled. ``block_ends`` is the end of each block's extra data, transactions and logs in them. The
    arrays from ``transactions`` on are working buffers.
    """
    count = len(ends) // 2
    extra_end, row, log = 0, 0, 0
    for block in range(count):
        start, end = 0 if block == 0 else ends[block - 1], ends[block]
        own, numbers = header_bytes[block], header_numbers[block]
        at = deep(
            text, space(text, start, end), end, _NAMES, _SLOTS, found,
            _TRANSACTIONS, TRANSACTION_NAMES, TRANSACTION_SLOTS, transactions, 0,
        )  # fmt: skip
        if at < 0 or not _read_header(text, found, first + block, header_form, own, numbers, work, state):
            return block
        extra_end = decode(text, found[_EXTRA, 0], found[_EXTRA, 1], extra, extra_end)
        many = found[_TRANSACTIONS, 1]
        if extra_end < 0 or found[_TRANSACTIONS, 0] < 0 or many > len(item_ends) or row + many > len(input_ends):
            return block
        if not read_transactions(
            text, transactions[:many], forms, numbers, row, transaction_bytes, transaction_numbers, inputs, input_ends,
            items, item_ends, inner, state,
        ):  # fmt: skip
            return block
        at = list_root(items, item_ends, many, work, frames, state)
        if at < 0 or not same(work, at, own, TRANSACTIONS_ROOT_AT, 32):
            return block
        bloom[:] = 0
        start, end = ends[count + block - 1], ends[count + block]
        log = read_receipts(
            text, start, end, forms, transaction_bytes[row : row + many], transaction_numbers[row : row + many], log,
            log_bytes, log_numbers, data, data_ends, logs, items, item_ends, bloom, found, state,
        )  # fmt: skip
        at = list_root(items, item_ends, many, work, frames, state) if log >= 0 else -1
        if at < 0 or not same(work, at, own, RECEIPTS_ROOT_AT, 32) or not same(bloom, 0, own, BLOOM_AT, len(bloom)):
            return block
        row += many
        block_ends[block, 0], block_ends[block, 1], block_ends[block, 2] = extra_end, row, log
    return count


def room(blocks: int, transactions: int, logs: int, size: int, longest: int) -> list[NDArray[Any]]:
    """Return the arrays that :func:`prove` fills and works in, in the order of its parameters.

    ``size`` is the length of all answers together, ``longest`` that of the longest. Blocks that need more space are not
    accepted.
    """
    bytes_, words, places = np.uint8, np.uint64, np.int64
    encoded = 2 * longest + _SPARE
    shapes: list[tuple[type, tuple[int, ...]]] = [
        (bytes_, (blocks, sum(width for _, width in HEADER_BYTES.values()))),
        (words, (blocks, len(HEADER_NUMBERS))),
        (bytes_, (blocks * _MOST_EXTRA,)),
        (bytes_, (transactions, VALUE_AT + 32)),
        (words, (transactions, len(TRANSACTION_NUMBERS))),
        (bytes_, (size // 2,)),
        (places, (transactions,)),
        (bytes_, (logs, TOPICS_AT + 32 * MOST_TOPICS)),
        (words, (logs, len(LOG_NUMBERS))),
        (bytes_, (size // 2,)),
        (places, (logs,)),
        (places, (blocks, 3)),
        (places, (transactions, len(TRANSACTION), 2)),
        (places, (logs, len(LOG), 2)),
        (bytes_, (encoded,)),
        (places, (transactions,)),
        (bytes_, (encoded,)),
        (places, (len(HEADER), 2)),
        (places, (INNERMOST, 2)),
        (places, (DEEPEST, 6)),
        (words, (25,)),
        (bytes_, (BLOOM_BYTES,)),
    ]
    sizes = [-(-math.prod(shape) * np.dtype(kind).itemsize // _WORD) * _WORD for kind, shape in shapes]
    whole = np.empty(sum(sizes), bytes_)  # one allocation, freed as one: many of a megabyte would fragment the heap
    ends = itertools.accumulate(sizes)
    return [
        whole[end - size : end][: math.prod(shape) * np.dtype(kind).itemsize].view(kind).reshape(shape)
        for (kind, shape), size, end in zip(shapes, sizes, ends, strict=True)
    ]
