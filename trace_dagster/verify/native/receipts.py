"""Reads a block's receipts and logs into columns, and writes what the receipts root covers."""

from __future__ import annotations

import numpy as np

from trace_dagster.verify.native.encode import (
    begin,
    byte,
    close,
    decode,
    fixed,
    put_head,
    put_kind,
    put_number,
    put_text,
    word,
)
from trace_dagster.verify.native.forms import LOG, OP_DEPOSIT, RECEIPT
from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.keccak import keccak
from trace_dagster.verify.native.layout import (
    CUMULATIVE_OF,
    GAS_USED_OF,
    HASH_AT,
    KIND,
    MOST_TOPICS,
    NONCE_OF,
    SUCCEEDED,
    TOPICS_AT,
    same,
)
from trace_dagster.verify.native.scan import deep, following, is_list, is_word, more, slotted, space, string
from trace_dagster.verify.native.types import ByteRows, Bytes, Ends, Found, Numbers, Objects, Places, Text, Word, Words

BLOOM_BYTES = 256
_TYPE, _STATUS, _CUMULATIVE, _OF, _LOGS, _DEPOSIT_NONCE, _DEPOSIT_VERSION = range(len(RECEIPT))
_ADDRESS, _TOPICS, _DATA = range(len(LOG))
_RECEIPT_NAMES, _RECEIPT_SLOTS = slotted(RECEIPT)
_LOG_NAMES, _LOG_SLOTS = slotted(LOG)
_CANYON = 1
"""The version of a deposit's receipt since the Canyon fork."""
_NULL = np.frombuffer(b"null", np.uint8)


@native
def _read_outcome(text: Text, found: Found, gas: Word, numbers: Words, row: Bytes, room: Bytes, at: int) -> bool:
    """Read a receipt into its transaction's row. False unless it has that transaction's type and hash, and a status."""
    succeeded = byte(text, found[_STATUS, 0], found[_STATUS, 1]) if found[_STATUS, 0] >= 0 else -1
    kind = byte(text, found[_TYPE, 0], found[_TYPE, 1])
    if succeeded < 0 or succeeded > 1 or kind != np.int64(numbers[KIND]):
        return False
    numbers[SUCCEEDED] = succeeded
    if not word(text, found[_CUMULATIVE, 0], found[_CUMULATIVE, 1], numbers, CUMULATIVE_OF):
        return False
    numbers[GAS_USED_OF] = numbers[CUMULATIVE_OF] - gas
    if numbers[CUMULATIVE_OF] < gas:
        return False
    if found[_OF, 0] < 0:
        return True
    return fixed(text, found[_OF, 0], found[_OF, 1], 32, room, at) >= 0 and same(room, at, row, HASH_AT, 32)


@native
def _read_log(text: Text, found: Found, row: Bytes, numbers: Words) -> bool:
    """Read a log's address and topics into its row."""
    place, end = found[_TOPICS, 0], found[_TOPICS, 1]
    if fixed(text, found[_ADDRESS, 0], found[_ADDRESS, 1], 20, row, 0) < 0 or not is_list(text, place, end):
        return False
    count, place = 0, following(text, place, end)
    while more(text, place):
        behind = string(text, place, end)
        if count == MOST_TOPICS or fixed(text, place, behind, 32, row, TOPICS_AT + 32 * count) < 0:
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
        bloom[BLOOM_BYTES - 1 - bit // 8] |= np.uint8(1 << (bit % 8))


@native
def _put_deposit_tail(text: Text, found: Found, transaction: Words, out: Bytes, at: int, state: Words) -> int:
    """Write nonce and version, which the root covers since Canyon. They must be those that the row gives back."""
    first, last = found[_DEPOSIT_NONCE, 0], found[_DEPOSIT_NONCE, 1]
    if not word(text, first, last, state, 0) or state[0] != transaction[NONCE_OF]:
        return -1
    at = put_number(text, first, last, out, at)
    first, last = found[_DEPOSIT_VERSION, 0], found[_DEPOSIT_VERSION, 1]
    return put_number(text, first, last, out, at) if byte(text, first, last) == _CANYON else -1


@native
def _put_receipt(
    text: Text, found: Found, forms: Ends, transaction: Words, rows: ByteRows, numbers: Numbers, data: Bytes,
    data_ends: Places, out: Bytes, at: int, bloom: Bytes, state: Words,
) -> int:  # fmt: skip
    """Write a receipt with its logs, which are already in columns, and add its bloom to the block's."""
    kind = int(transaction[KIND])
    at = put_kind(kind, out, at)
    start, at = at, begin(out, at)
    at = put_number(text, found[_STATUS, 0], found[_STATUS, 1], out, at)
    at = put_number(text, found[_CUMULATIVE, 0], found[_CUMULATIVE, 1], out, at)
    at = put_head(0x80, BLOOM_BYTES, out, at)
    if at < 0 or at + BLOOM_BYTES + 32 > len(out):
        return -1
    mine = out[at : at + BLOOM_BYTES]
    mine[:] = 0
    at += BLOOM_BYTES
    for log in range(found[_LOGS, 0], found[_LOGS, 1]):
        _set_bits(rows[log], 0, TOPICS_AT, mine, out, at, state)
        for topic in range(np.int64(numbers[log, 1])):
            first = TOPICS_AT + 32 * topic
            _set_bits(rows[log], first, first + 32, mine, out, at, state)
    opened, at = at, begin(out, at)
    for log in range(found[_LOGS, 0], found[_LOGS, 1]):
        first = 0 if log == 0 else data_ends[log - 1]
        at = _put_log(rows[log], int(numbers[log, 1]), data, first, data_ends[log], out, at)
    for place in range(BLOOM_BYTES):
        bloom[place] |= mine[place]
    at = close(out, opened, at)
    if forms[kind] == OP_DEPOSIT and found[_DEPOSIT_VERSION, 0] >= 0:
        at = _put_deposit_tail(text, found, transaction, out, at, state)
    return close(out, start, at)


@native
def read_receipts(
    text: Text, at: int, end: int, forms: Ends, transaction_bytes: ByteRows, transaction_numbers: Numbers, log: int,
    log_bytes: ByteRows, log_numbers: Numbers, data: Bytes, data_ends: Places, logs: Objects, items: Bytes,
    item_ends: Places, bloom: Bytes, found: Found, state: Words,
) -> int:  # fmt: skip
    """Read one receipt per transaction into ``items`` and their logs into columns from row ``log`` on.

    Return the row after the last log, or -1 if a receipt is malformed or does not belong to its transaction.
    """
    row, start, gas = 0, 0, np.uint64(0)
    at = space(text, at, end)
    if len(transaction_numbers) == 0 and is_word(text, at, end, _NULL):
        return log  # some nodes have no receipts of a block without transactions
    at = following(text, at, end) if is_list(text, at, end) else -1
    while more(text, at):
        at = deep(text, at, end, _RECEIPT_NAMES, _RECEIPT_SLOTS, found, _LOGS, _LOG_NAMES, _LOG_SLOTS, logs, log)
        if at < 0 or found[_LOGS, 0] < 0 or found[_LOGS, 1] > len(data_ends) or row == len(transaction_numbers):
            return -1
        numbers = transaction_numbers[row]
        if not _read_outcome(text, found, gas, numbers, transaction_bytes[row], items, start):
            return -1
        gas = numbers[CUMULATIVE_OF]
        for place in range(log, found[_LOGS, 1]):
            first = 0 if place == 0 else data_ends[place - 1]
            last = decode(text, logs[place, _DATA, 0], logs[place, _DATA, 1], data, first)
            log_numbers[place, 0] = row
            if last < 0 or not _read_log(text, logs[place], log_bytes[place], log_numbers[place]):
                return -1
            data_ends[place] = last
        start = _put_receipt(
            text, found, forms, numbers, log_bytes, log_numbers, data, data_ends, items, start, bloom, state
        )
        if start < 0:
            return -1
        item_ends[row] = start
        log = found[_LOGS, 1]
        row += 1
        at = following(text, at, end)
    return log if at >= 0 and row == len(transaction_numbers) else -1
