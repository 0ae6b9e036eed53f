"""Reads blocks and receipts from JSON text into columns, and proves each block by the hash and roots of its header.

The encodings are those of ``prove.py``, ``envelopes.py`` and ``receipts.py`` in ``verify/commitments``. Members are
numbered by their position in the tuples of names. ``scan.py`` finds the members, then they are read in that order.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trace_dagster.verify.native.encode import (
    begin,
    close,
    decode,
    fixed,
    put_bytes,
    put_head,
    put_kind,
    put_number,
    put_text,
    small,
    wide,
    word,
)
from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.keccak import keccak
from trace_dagster.verify.native.scan import deep, flat, following, is_list, more, space, string
from trace_dagster.verify.native.trie import DEEPEST, list_root
from trace_dagster.verify.native.types import (
    ByteRows,
    Bytes,
    Ends,
    Found,
    Numbers,
    Objects,
    Places,
    Table,
    Text,
    Word,
    Words,
)

HEADER = (
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty",
    "number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas", "withdrawalsRoot",
    "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash", "hash", "transactions",
)  # fmt: skip
"""The first 21 fields are in the order in which they are hashed."""
_ANY, _NUMBER = -1, 0
_HEADER_SIZES = np.array([32, 32, 20, 32, 32, 32, 256, 0, 0, 0, 0, 0, -1, 32, 8, 0, 32, 0, 0, 32, 32], np.int64)
"""Bytes of each hashed member; 0 for a number, -1 for any length."""
TRANSACTION = (
    "type", "chainId", "nonce", "gasPrice", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "input",
    "accessList", "maxFeePerBlobGas", "blobVersionedHashes", "authorizationList", "yParity", "v", "r", "s", "hash",
    "from",
)  # fmt: skip
_ACCESS = ("address", "storageKeys")
_AUTHORIZATION = ("chainId", "address", "nonce", "yParity", "v", "r", "s")
_AUTHORIZATION_ADDRESS, _AUTHORIZATION_PARITY = 1, 3
RECEIPT = ("type", "status", "cumulativeGasUsed", "transactionHash", "logs")
LOG = ("address", "topics", "data")
_MOST_TOPICS = 4
_BLOOM_BYTES = 256
_MOST_EXTRA = 256
_SPARE = 1 << 16
_WORD = 8
(
    _PARENT, _UNCLES, _MINER, _STATE, _TRANSACTIONS_ROOT, _RECEIPTS_ROOT, _BLOOM, _DIFFICULTY, _HEADER_NUMBER,
    _GAS_LIMIT, _GAS_USED, _TIME, _EXTRA, _MIX, _HEADER_NONCE, _BASE_FEE, _WITHDRAWALS, _BLOB_GAS, _EXCESS, _BEACON,
    _REQUESTS, _HASH, _TRANSACTIONS,
) = range(len(HEADER))  # fmt: skip
(
    _TYPE, _CHAIN, _NONCE, _PRICE, _TIP, _CAP, _GAS, _TO, _VALUE, _INPUT, _ACCESSES, _BLOB_CAP, _BLOB_HASHES,
    _AUTHORIZATIONS, _PARITY, _V, _R, _S, _TRANSACTION_HASH, _FROM,
) = range(len(TRANSACTION))  # fmt: skip
_RECEIPT_TYPE, _STATUS, _CUMULATIVE, _OF, _LOGS = range(len(RECEIPT))
_ADDRESS, _TOPICS, _DATA = range(len(LOG))

_FEES = (_TIP, _CAP, _GAS, _TO, _VALUE, _INPUT, _ACCESSES)
_SIGNED = (_PARITY, _R, _S)
_LONGEST_FORM = 14
_FORMS = np.array(
    [
        [*form, *[_ANY] * (_LONGEST_FORM - len(form))]
        for form in (
            (_NONCE, _PRICE, _GAS, _TO, _VALUE, _INPUT, _V, _R, _S),
            (_CHAIN, _NONCE, _PRICE, _GAS, _TO, _VALUE, _INPUT, _ACCESSES, *_SIGNED),
            (_CHAIN, _NONCE, *_FEES, *_SIGNED),
            (_CHAIN, _NONCE, *_FEES, _BLOB_CAP, _BLOB_HASHES, *_SIGNED),
            (_CHAIN, _NONCE, *_FEES, _AUTHORIZATIONS, *_SIGNED),
        )
    ],
    np.int64,
)
"""The hashed fields of a transaction of each type, in order (EIP-155, 2930, 1559, 4844, 7702)."""

HEADER_BYTES = {
    "hash": (_HASH, 32), "parent_hash": (_PARENT, 32), "transactions_root": (_TRANSACTIONS_ROOT, 32),
    "receipts_root": (_RECEIPTS_ROOT, 32), "logs_bloom": (_BLOOM, 256), "state_root": (_STATE, 32),
    "author": (_MINER, 20),
}  # fmt: skip
"""Header columns of fixed size: the member to read, and its bytes."""
TRANSACTION_BYTES = {"hash": (_TRANSACTION_HASH, 32), "sender": (_FROM, 20), "to": (_TO, 20)}
"""Transaction columns of fixed size; 32 bytes of value follow them in a row."""
VALUE_AT, TOPICS_AT = sum(size for _, size in TRANSACTION_BYTES.values()), 20
HEADER_NUMBERS = ("gas_used", "timestamp", "base_fee", "has_base_fee")
TRANSACTION_NUMBERS = (
    "kind", "has_sender", "has_to", "nonce", "gas_limit", "gas_price", "cap", "tip", "succeeded", "cumulative_gas",
    "gas_used",
)  # fmt: skip
LOG_NUMBERS = ("transaction", "topics")
(
    _KIND, _HAS_SENDER, _HAS_TO, _NONCE_OF, _GAS_LIMIT_OF, _GAS_PRICE_OF, _CAP_OF, _TIP_OF, _SUCCEEDED,
    _CUMULATIVE_OF, _GAS_USED_OF,
) = range(len(TRANSACTION_NUMBERS))  # fmt: skip
_BASE_FEE_OF, _HAS_BASE_FEE = 2, 3


def _members(columns: dict[str, tuple[int, int]]) -> Table:
    """Return (member, first byte in the row, size) of each column."""
    sizes = [size for _, size in columns.values()]
    firsts = np.cumsum([0, *sizes[:-1]])
    return np.array([(which, at, size) for (which, size), at in zip(columns.values(), firsts, strict=True)], np.int64)


def _names(given: tuple[str, ...]) -> tuple[Text, Ends]:
    joined = "".join(given).encode()
    return np.frombuffer(joined, np.uint8), np.cumsum([len(each) for each in given], dtype=np.int64)


_HEADER_COLUMNS, _TRANSACTION_COLUMNS = _members(HEADER_BYTES), _members(TRANSACTION_BYTES)
_HASH_AT, _, _TRANSACTIONS_ROOT_AT, _RECEIPTS_ROOT_AT, _BLOOM_AT, *_ = _HEADER_COLUMNS[:, 1].tolist()
_HEADER_NAMES, _HEADER_ENDS = _names(HEADER)
_TRANSACTION_NAMES, _TRANSACTION_ENDS = _names(TRANSACTION)
_ACCESS_NAMES, _ACCESS_ENDS = _names(_ACCESS)
_AUTHORIZATION_NAMES, _AUTHORIZATION_ENDS = _names(_AUTHORIZATION)
_RECEIPT_NAMES, _RECEIPT_ENDS = _names(RECEIPT)
_LOG_NAMES, _LOG_ENDS = _names(LOG)
_INNERMOST = len(_AUTHORIZATION)


@native
def _same(one: Bytes, at: int, other: Bytes, place: int, size: int) -> bool:
    for step in range(size):
        if one[at + step] != other[place + step]:
            return False
    return True


@native
def _read_bytes(text: Text, found: Found, columns: Table, row: Bytes) -> bool:
    """Decode a block's fixed-size fields into a row. Skip a missing field."""
    for column in range(len(columns)):
        which, at, size = columns[column]
        if found[which, 0] >= 0 and fixed(text, found[which, 0], found[which, 1], size, row, at) < 0:
            return False
    return True


@native
def _read_header(text: Text, found: Found, number: int, row: Bytes, numbers: Words, out: Bytes, state: Words) -> bool:
    """Read the header's columns. False unless it has the number and gives its own hash."""
    numbers[_HAS_BASE_FEE] = 1 if found[_BASE_FEE, 0] >= 0 else 0
    numbers[_BASE_FEE_OF] = 0
    if (
        not word(text, found[_HEADER_NUMBER, 0], found[_HEADER_NUMBER, 1], state, 0)
        or state[0] != np.uint64(number)
        or not word(text, found[_GAS_USED, 0], found[_GAS_USED, 1], numbers, 0)
        or not word(text, found[_TIME, 0], found[_TIME, 1], numbers, 1)
        or (numbers[_HAS_BASE_FEE] and not word(text, found[_BASE_FEE, 0], found[_BASE_FEE, 1], numbers, _BASE_FEE_OF))
        or found[_HASH, 0] < 0
        or not _read_bytes(text, found, _HEADER_COLUMNS, row)
    ):
        return False
    at, missing = begin(out, 0), False
    for which in range(len(_HEADER_SIZES)):
        start, end, size = found[which, 0], found[which, 1], _HEADER_SIZES[which]
        if start < 0:
            missing = True
            if which < _BASE_FEE:
                return False
        elif missing:
            return False  # a gap before later fields: a value could pass for another field
        elif size == _NUMBER:
            at = put_number(text, start, end, out, at)
        else:
            at = put_bytes(text, start, end, size, out, at)
    at = close(out, 0, at)
    if at < 0:
        return False
    keccak(out, 0, at, out, at, state)
    return _same(out, at, row, _HASH_AT, 32)


@native
def _read_transaction(text: Text, found: Found, header: Words, row: Bytes, numbers: Words) -> bool:
    kind = small(text, found[_TYPE, 0], found[_TYPE, 1])
    if kind < 0 or kind >= len(_FORMS):
        return False
    numbers[_KIND] = kind
    numbers[_HAS_SENDER] = 1 if found[_FROM, 0] >= 0 else 0
    numbers[_HAS_TO] = 1 if found[_TO, 0] >= 0 else 0
    numbers[_CAP_OF] = 0
    numbers[_TIP_OF] = 0
    if (
        found[_TRANSACTION_HASH, 0] < 0
        or not _read_bytes(text, found, _TRANSACTION_COLUMNS, row)
        or not wide(text, found[_VALUE, 0], found[_VALUE, 1], row[VALUE_AT : VALUE_AT + 32])
        or not word(text, found[_NONCE, 0], found[_NONCE, 1], numbers, _NONCE_OF)
        or not word(text, found[_GAS, 0], found[_GAS, 1], numbers, _GAS_LIMIT_OF)
    ):
        return False
    if kind < 2:
        return word(text, found[_PRICE, 0], found[_PRICE, 1], numbers, _GAS_PRICE_OF)
    if (
        not header[_HAS_BASE_FEE]
        or not word(text, found[_CAP, 0], found[_CAP, 1], numbers, _CAP_OF)
        or not word(text, found[_TIP, 0], found[_TIP, 1], numbers, _TIP_OF)
    ):
        return False
    price = header[_BASE_FEE_OF] + numbers[_TIP_OF]
    numbers[_GAS_PRICE_OF] = min(numbers[_CAP_OF], price)
    return bool(price >= numbers[_TIP_OF])


@native
def _put_hashes(text: Text, place: int, end: int, out: Bytes, at: int) -> int:
    """Write a list of 32-byte values."""
    if not is_list(text, place, end):
        return -1
    start, at = at, begin(out, at)
    place = following(text, place, end)
    while more(text, place):
        behind = string(text, place, end)
        at = put_bytes(text, place, behind, 32, out, at)
        place = following(text, behind, end) if at >= 0 else -1
    return close(out, start, at) if place >= 0 else -1


@native
def _put_accesses(text: Text, place: int, end: int, out: Bytes, at: int, entry: Found) -> int:
    """Write the entries of an access list: address and storage keys (EIP-2930)."""
    if not is_list(text, place, end):
        return -1
    start, at = at, begin(out, at)
    place = following(text, place, end)
    while more(text, place):
        place = flat(text, place, end, _ACCESS_NAMES, _ACCESS_ENDS, entry)
        opened, at = at, begin(out, at)
        at = put_bytes(text, entry[0, 0], entry[0, 1], 20, out, at)
        at = close(out, opened, _put_hashes(text, entry[1, 0], entry[1, 1], out, at))
        place = following(text, place, end) if at >= 0 else -1
    return close(out, start, at) if place >= 0 else -1


@native
def _put_authorizations(text: Text, place: int, end: int, out: Bytes, at: int, entry: Found) -> int:
    """Write the entries of an authorization list: chain id, address, nonce and signature (EIP-7702)."""
    if not is_list(text, place, end):
        return -1
    start, at = at, begin(out, at)
    place = following(text, place, end)
    while more(text, place):
        place = flat(text, place, end, _AUTHORIZATION_NAMES, _AUTHORIZATION_ENDS, entry)
        opened, at = at, begin(out, at)
        for member in range(_INNERMOST):
            first, last = entry[member, 0], entry[member, 1]
            if member == _AUTHORIZATION_ADDRESS:
                at = put_bytes(text, first, last, 20, out, at)
            elif member == _AUTHORIZATION_PARITY and first < 0:
                at = put_number(text, entry[member + 1, 0], entry[member + 1, 1], out, at)
            elif member != _AUTHORIZATION_PARITY + 1:
                at = put_number(text, first, last, out, at)
        at = close(out, opened, at)
        place = following(text, place, end) if at >= 0 else -1
    return close(out, start, at) if place >= 0 else -1


@native
def _put_transaction(text: Text, found: Found, kind: int, out: Bytes, at: int, inner: Found) -> int:
    """Write the bytes whose keccak is the transaction's hash."""
    at = put_kind(kind, out, at)
    start, at = at, begin(out, at)
    for place in range(_LONGEST_FORM):
        which = _FORMS[kind, place]
        if which == _PARITY and found[_PARITY, 0] < 0:
            which = _V
        if which == _ANY or at < 0:
            break
        first, last = found[which, 0], found[which, 1]
        if which == _TO or which == _INPUT:
            at = put_head(0x80, 0, out, at) if first < 0 and which == _TO else put_bytes(
                text, first, last, 20 if which == _TO else _ANY, out, at
            )  # fmt: skip
        elif which == _ACCESSES:
            at = _put_accesses(text, first, last, out, at, inner)
        elif which == _BLOB_HASHES:
            at = _put_hashes(text, first, last, out, at)
        elif which == _AUTHORIZATIONS:
            at = _put_authorizations(text, first, last, out, at, inner)
        else:
            at = put_number(text, first, last, out, at)
    return close(out, start, at)


@native
def _read_transactions(
    text: Text, found: Objects, header: Words, row: int, rows: ByteRows, numbers: Numbers, inputs: Bytes,
    input_ends: Places, items: Bytes, item_ends: Places, inner: Found, state: Words,
) -> bool:  # fmt: skip
    """Read a block's transactions into columns from ``row`` on, and their encodings into ``items``.

    Return False unless the keccak of each encoding is the hash that the node gave.
    """
    start, at = 0, 0 if row == 0 else input_ends[row - 1]
    for each in range(len(found)):
        at = decode(text, found[each, _INPUT, 0], found[each, _INPUT, 1], inputs, at)
        if at < 0 or not _read_transaction(text, found[each], header, rows[row], numbers[row]):
            return False
        input_ends[row] = at
        end = _put_transaction(text, found[each], int(numbers[row, _KIND]), items, start, inner)
        if end < 0 or end + 32 > len(items):
            return False
        keccak(items, start, end, items, end, state)
        if not _same(items, end, rows[row], _HASH_AT, 32):
            return False
        start = item_ends[each] = end
        row += 1
    return True


@native
def _read_outcome(text: Text, found: Found, gas: Word, numbers: Words, row: Bytes, room: Bytes, at: int) -> bool:
    """Read a receipt into its transaction's row. False unless it has that transaction's type and hash, and a status."""
    succeeded = small(text, found[_STATUS, 0], found[_STATUS, 1]) if found[_STATUS, 0] >= 0 else -1
    kind = small(text, found[_RECEIPT_TYPE, 0], found[_RECEIPT_TYPE, 1])
    if succeeded < 0 or succeeded > 1 or kind != np.int64(numbers[_KIND]):
        return False
    numbers[_SUCCEEDED] = succeeded
    if not word(text, found[_CUMULATIVE, 0], found[_CUMULATIVE, 1], numbers, _CUMULATIVE_OF):
        return False
    numbers[_GAS_USED_OF] = numbers[_CUMULATIVE_OF] - gas
    if numbers[_CUMULATIVE_OF] < gas:
        return False
    if found[_OF, 0] < 0:
        return True
    return fixed(text, found[_OF, 0], found[_OF, 1], 32, room, at) >= 0 and _same(room, at, row, _HASH_AT, 32)


@native
def _read_log(text: Text, found: Found, row: Bytes, numbers: Words) -> bool:
    """Read a log's address and topics into its row."""
    place, end = found[_TOPICS, 0], found[_TOPICS, 1]
    if fixed(text, found[_ADDRESS, 0], found[_ADDRESS, 1], 20, row, 0) < 0 or not is_list(text, place, end):
        return False
    count, place = 0, following(text, place, end)
    while more(text, place):
        behind = string(text, place, end)
        if count == _MOST_TOPICS or fixed(text, place, behind, 32, row, TOPICS_AT + 32 * count) < 0:
            return False
        count += 1
        place = following(text, behind, end)
    numbers[1] = count
    return place >= 0


@native
def _put_log(row: Bytes, topics: int, data: Bytes, first: int, last: int, out: Bytes, at: int) -> int:
    start, at = at, begin(out, at)
    at = put_text(row, 0, TOPICS_AT, out, at)
    opened, at = at, begin(out, at)
    for topic in range(topics):
        at = put_text(row, TOPICS_AT + 32 * topic, TOPICS_AT + 32 * (topic + 1), out, at)
    at = put_text(data, first, last, out, close(out, opened, at))
    return close(out, start, at)


@native
def _set_bits(entry: Bytes, first: int, last: int, bloom: Bytes, room: Bytes, at: int, state: Words) -> None:
    """Set the three bits of an address or topic (yellow paper, section 4.3.1). ``room`` has 32 free bytes at ``at``."""
    keccak(entry, first, last, room, at, state)
    for place in range(at, at + 6, 2):
        bit = ((np.int64(room[place]) << 8) | np.int64(room[place + 1])) & 2047
        bloom[_BLOOM_BYTES - 1 - bit // 8] |= np.uint8(1 << (bit % 8))


@native
def _put_receipt(
    text: Text, found: Found, kind: int, rows: ByteRows, numbers: Numbers, data: Bytes, data_ends: Places,
    out: Bytes, at: int, bloom: Bytes, state: Words,
) -> int:  # fmt: skip
    """Write a receipt with its logs, which are already in columns, and add its bloom to the block's."""
    at = put_kind(kind, out, at)
    start, at = at, begin(out, at)
    at = put_number(text, found[_STATUS, 0], found[_STATUS, 1], out, at)
    at = put_number(text, found[_CUMULATIVE, 0], found[_CUMULATIVE, 1], out, at)
    at = put_head(0x80, _BLOOM_BYTES, out, at)
    if at < 0 or at + _BLOOM_BYTES + 32 > len(out):
        return -1
    mine = out[at : at + _BLOOM_BYTES]
    mine[:] = 0
    at += _BLOOM_BYTES
    for log in range(found[_LOGS, 0], found[_LOGS, 1]):
        _set_bits(rows[log], 0, TOPICS_AT, mine, out, at, state)
        for topic in range(np.int64(numbers[log, 1])):
            first = TOPICS_AT + 32 * topic
            _set_bits(rows[log], first, first + 32, mine, out, at, state)
    opened, at = at, begin(out, at)
    for log in range(found[_LOGS, 0], found[_LOGS, 1]):
        first = 0 if log == 0 else data_ends[log - 1]
        at = _put_log(rows[log], int(numbers[log, 1]), data, first, data_ends[log], out, at)
    for byte in range(_BLOOM_BYTES):
        bloom[byte] |= mine[byte]
    return close(out, start, close(out, opened, at))


@native
def _read_receipts(
    text: Text, at: int, end: int, transaction_bytes: ByteRows, transaction_numbers: Numbers, log: int,
    log_bytes: ByteRows, log_numbers: Numbers, data: Bytes, data_ends: Places, logs: Objects, items: Bytes,
    item_ends: Places, bloom: Bytes, found: Found, state: Words,
) -> int:  # fmt: skip
    """Read one receipt per transaction into ``items`` and their logs into columns from row ``log`` on.

    Return the row after the last log, or -1 if a receipt is malformed or does not belong to its transaction.
    """
    row, start, gas = 0, 0, np.uint64(0)
    at = space(text, at, end)
    at = following(text, at, end) if is_list(text, at, end) else -1
    while more(text, at):
        at = deep(text, at, end, _RECEIPT_NAMES, _RECEIPT_ENDS, found, _LOGS, _LOG_NAMES, _LOG_ENDS, logs, log)
        if at < 0 or found[_LOGS, 0] < 0 or found[_LOGS, 1] > len(data_ends) or row == len(transaction_numbers):
            return -1
        numbers = transaction_numbers[row]
        if not _read_outcome(text, found, gas, numbers, transaction_bytes[row], items, start):
            return -1
        gas = numbers[_CUMULATIVE_OF]
        for place in range(log, found[_LOGS, 1]):
            first = 0 if place == 0 else data_ends[place - 1]
            last = decode(text, logs[place, _DATA, 0], logs[place, _DATA, 1], data, first)
            log_numbers[place, 0] = row
            if last < 0 or not _read_log(text, logs[place], log_bytes[place], log_numbers[place]):
                return -1
            data_ends[place] = last
        start = _put_receipt(
            text, found, int(numbers[_KIND]), log_bytes, log_numbers, data, data_ends, items, start, bloom, state
        )
        if start < 0:
            return -1
        item_ends[row] = start
        log = found[_LOGS, 1]
        row += 1
        at = following(text, at, end)
    return log if at >= 0 and row == len(transaction_numbers) else -1


@native
def prove(
    text: Text, ends: Ends, first: int,
    header_bytes: ByteRows, header_numbers: Numbers, extra: Bytes,
    transaction_bytes: ByteRows, transaction_numbers: Numbers, inputs: Bytes, input_ends: Places,
    log_bytes: ByteRows, log_numbers: Numbers, data: Bytes, data_ends: Places,
    block_ends: Found, transactions: Objects, logs: Objects, items: Bytes, item_ends: Places, work: Bytes,
    found: Found, inner: Found, frames: Found, state: Words, bloom: Bytes,
) -> int:  # fmt: skip
    """Return how many of the blocks from number ``first`` on are proven, up to the first that is not.

    ``text`` has the answers of all blocks, then those of their receipts; ``ends`` is the end of each. The columns of
    proven blocks are filled. ``block_ends`` is the end of each block's extra data, transactions and logs in them. The
    arrays from ``transactions`` on are working buffers.
    """
    count = len(ends) // 2
    extra_end, row, log = 0, 0, 0
    for block in range(count):
        start, end = 0 if block == 0 else ends[block - 1], ends[block]
        own, numbers = header_bytes[block], header_numbers[block]
        at = deep(
            text, space(text, start, end), end, _HEADER_NAMES, _HEADER_ENDS, found,
            _TRANSACTIONS, _TRANSACTION_NAMES, _TRANSACTION_ENDS, transactions, 0,
        )  # fmt: skip
        if at < 0 or not _read_header(text, found, first + block, own, numbers, work, state):
            return block
        extra_end = decode(text, found[_EXTRA, 0], found[_EXTRA, 1], extra, extra_end)
        many = found[_TRANSACTIONS, 1]
        if extra_end < 0 or found[_TRANSACTIONS, 0] < 0 or many > len(item_ends) or row + many > len(input_ends):
            return block
        if not _read_transactions(
            text, transactions[:many], numbers, row, transaction_bytes, transaction_numbers, inputs, input_ends,
            items, item_ends, inner, state,
        ):  # fmt: skip
            return block
        at = list_root(items, item_ends, many, work, frames, state)
        if at < 0 or not _same(work, at, own, _TRANSACTIONS_ROOT_AT, 32):
            return block
        bloom[:] = 0
        start, end = ends[count + block - 1], ends[count + block]
        log = _read_receipts(
            text, start, end, transaction_bytes[row : row + many], transaction_numbers[row : row + many], log,
            log_bytes, log_numbers, data, data_ends, logs, items, item_ends, bloom, found, state,
        )  # fmt: skip
        at = list_root(items, item_ends, many, work, frames, state) if log >= 0 else -1
        if at < 0 or not _same(work, at, own, _RECEIPTS_ROOT_AT, 32) or not _same(bloom, 0, own, _BLOOM_AT, len(bloom)):
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
        (bytes_, (logs, TOPICS_AT + 32 * _MOST_TOPICS)),
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
        (places, (_INNERMOST, 2)),
        (places, (DEEPEST, 6)),
        (words, (25,)),
        (bytes_, (_BLOOM_BYTES,)),
    ]
    sizes = [-(-math.prod(shape) * np.dtype(kind).itemsize // _WORD) * _WORD for kind, shape in shapes]
    whole = np.empty(sum(sizes), bytes_)  # one allocation, freed as one: many of a megabyte would fragment the heap
    ends = itertools.accumulate(sizes)
    return [
        whole[end - size : end][: math.prod(shape) * np.dtype(kind).itemsize].view(kind).reshape(shape)
        for (kind, shape), size, end in zip(shapes, sizes, ends, strict=True)
    ]
