"""Reads a block's transactions into columns, and writes what their hashes are taken of: see ``forms.py``."""

from __future__ import annotations

from trace_dagster.verify.native.encode import (
    begin,
    byte,
    close,
    decode,
    fixed,
    put_bytes,
    put_flag,
    put_head,
    put_kind,
    put_number,
    wide,
    word,
)
from trace_dagster.verify.native.forms import (
    ACCESS,
    ACCESSES,
    ADDRESS_OR_NONE,
    ANY_BYTES,
    ARBOS_ADDRESS,
    ARBOS_CALL,
    AUTHORIZATION,
    AUTHORIZATIONS,
    CAPPED_OR_BASE,
    CLAIMED,
    FLAG,
    HAS_NONCE,
    HASHES,
    INSTEAD,
    NO_INPUT,
    NO_MEMBER,
    NUMBER,
    NUMBER_OR_NONE,
    PRICED,
    PRICES,
    RETRYABLES_ADDRESS,
    SUBMISSION,
    SUBMIT_SELECTOR,
    SUBMIT_WORDS,
    TRANSACTION,
    TRANSACTION_ENCODINGS,
    TRANSACTION_FORMS,
    UNHASHED,
)
from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.keccak import keccak
from trace_dagster.verify.native.layout import (
    BASE_FEE_OF,
    CAP_OF,
    GAS_LIMIT_OF,
    GAS_PRICE_OF,
    HAS_BASE_FEE,
    HAS_CAP,
    HAS_PRICE,
    HAS_SENDER,
    HAS_TIP,
    HAS_TO,
    HASH_AT,
    KIND,
    NONCE_OF,
    SENDER_AT,
    TIP_OF,
    TO_AT,
    TRANSACTION_COLUMNS,
    VALUE_AT,
    read_bytes,
    same,
)
from trace_dagster.verify.native.scan import flat, following, is_list, more, slotted, string
from trace_dagster.verify.native.types import ByteRows, Bytes, Ends, Found, Numbers, Objects, Places, Text, Words

(
    _TYPE, _CHAIN, _NONCE, _PRICE, _TIP, _CAP, _GAS, _TO, _VALUE, _INPUT, _ACCESSES, _BLOB_CAP, _BLOB_HASHES,
    _AUTHORIZATIONS, _PARITY, _V, _R, _S, _HASH, _FROM, *_,
) = range(len(TRANSACTION))  # fmt: skip
TRANSACTION_NAMES, TRANSACTION_SLOTS = slotted(TRANSACTION)
_ACCESS_NAMES, _ACCESS_SLOTS = slotted(ACCESS)
_AUTHORIZATION_NAMES, _AUTHORIZATION_SLOTS = slotted(AUTHORIZATION)
_AUTHORIZATION_ADDRESS, _AUTHORIZATION_PARITY = AUTHORIZATION.index("address"), AUTHORIZATION.index("yParity")
_ADDRESS_BYTES = 20
_RETRY_DATA = TRANSACTION.index("retryData")
INNERMOST = len(AUTHORIZATION)
_NO_BYTES = len('"0x"')


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
        place = flat(text, place, end, _ACCESS_NAMES, _ACCESS_SLOTS, entry)
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
        place = flat(text, place, end, _AUTHORIZATION_NAMES, _AUTHORIZATION_SLOTS, entry)
        opened, at = at, begin(out, at)
        for member in range(INNERMOST):
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
def _put_member(text: Text, place: int, end: int, encoding: int, out: Bytes, at: int, inner: Found) -> int:
    """Write a member of a transaction."""
    if encoding == NUMBER:
        return put_number(text, place, end, out, at)
    if encoding >= ANY_BYTES:
        return put_bytes(text, place, end, encoding, out, at)
    if encoding == FLAG:
        return put_flag(text, place, end, out, at)
    if encoding == ACCESSES:
        return _put_accesses(text, place, end, out, at, inner)
    if encoding == HASHES:
        return _put_hashes(text, place, end, out, at)
    if encoding == AUTHORIZATIONS:
        return _put_authorizations(text, place, end, out, at, inner)
    if place < 0:
        return put_head(0x80, 0, out, at)
    if encoding == NUMBER_OR_NONE:
        return put_number(text, place, end, out, at)
    return put_bytes(text, place, end, 20, out, at)


@native
def _put_transaction(text: Text, found: Found, form: int, kind: int, out: Bytes, at: int, inner: Found) -> int:
    """Write the bytes whose keccak is the transaction's hash."""
    at = put_kind(kind, out, at)
    start, at = at, begin(out, at)
    for place in range(TRANSACTION_FORMS.shape[1]):
        which = TRANSACTION_FORMS[form, place]
        if which == NO_MEMBER or at < 0:
            break
        if found[which, 0] < 0:
            which = INSTEAD[which]
        at = _put_member(text, found[which, 0], found[which, 1], TRANSACTION_ENCODINGS[which], out, at, inner)
    return close(out, start, at)


@native
def _word_or_none(text: Text, found: Found, which: int, numbers: Words, has: int, of: int) -> bool:
    """Read a member that may be missing, and whether it is there. A missing number is 0."""
    given = found[which, 0] >= 0
    numbers[has] = 1 if given else 0
    numbers[of] = 0
    return not given or word(text, found[which, 0], found[which, 1], numbers, of)


@native
def _read_price(text: Text, found: Found, rule: int, header: Words, numbers: Words) -> bool:
    """Read the fee caps, and the effective price per unit of gas (EIP-1559)."""
    if (
        not _word_or_none(text, found, _PRICE, numbers, HAS_PRICE, GAS_PRICE_OF)
        or not _word_or_none(text, found, _CAP, numbers, HAS_CAP, CAP_OF)
        or not _word_or_none(text, found, _TIP, numbers, HAS_TIP, TIP_OF)
    ):
        return False
    if rule == CLAIMED:
        return True
    if rule == PRICED:
        numbers[HAS_CAP] = numbers[HAS_TIP] = 0
        return bool(numbers[HAS_PRICE])
    base = header[BASE_FEE_OF]
    highest = base + numbers[TIP_OF]
    if not (header[HAS_BASE_FEE] and numbers[HAS_CAP] and numbers[HAS_TIP] and highest >= base):
        return False
    if not (rule == CAPPED_OR_BASE and numbers[HAS_PRICE] and numbers[GAS_PRICE_OF] == base):
        numbers[GAS_PRICE_OF] = min(numbers[CAP_OF], highest)
    numbers[HAS_PRICE] = 1
    return True


@native
def _has_value(row: Bytes) -> bool:
    for place in range(VALUE_AT, VALUE_AT + 32):
        if row[place]:
            return True
    return False


@native
def _put_argument(text: Text, found: Found, which: int, out: Bytes, at: int) -> int:
    """Write a member as a word of 32 bytes, its value at the end. A missing address is 0 if it may be missing."""
    if at < 0 or at + 32 > len(out):
        return -1
    out[at : at + 32] = 0
    if found[which, 0] < 0:
        which = INSTEAD[which]
    first, last, size = found[which, 0], found[which, 1], TRANSACTION_ENCODINGS[which]
    if size == NUMBER:
        return at + 32 if wide(text, first, last, out[at : at + 32]) else -1
    if size == ADDRESS_OR_NONE:
        if first < 0:
            return at + 32
        size = _ADDRESS_BYTES
    return fixed(text, first, last, size, out, at + 32 - size)


@native
def _put_length(length: int, out: Bytes, at: int) -> None:
    """Write a length as a word of 32 bytes."""
    out[at : at + 32] = 0
    for place in range(8):
        out[at + 31 - place] = (length >> (8 * place)) & 255


@native
def _put_arguments(text: Text, found: Found, out: Bytes, at: int) -> int:
    """Write the arguments of a submitted retryable's call: words, then ``retryData`` behind its place and length."""
    start = at
    for each in range(len(SUBMIT_WORDS)):
        at = _put_argument(text, found, SUBMIT_WORDS[each], out, at)
    if at < 0 or at + 64 > len(out):
        return -1
    last = decode(text, found[_RETRY_DATA, 0], found[_RETRY_DATA, 1], out, at + 64)
    if last < 0 or last + 32 > len(out):
        return -1
    _put_length(at + 32 - start, out, at)
    _put_length(last - at - 64, out, at + 32)
    while (last - at) % 32:
        out[last] = 0
        last += 1
    return last


@native
def _is_submission(
    text: Text, found: Found, row: Bytes, numbers: Words, data: Bytes, first: int, last: int, room: Bytes, at: int
) -> bool:
    """Return whether target, value and input are those that nodes derive from the members of a submitted retryable."""
    if _has_value(row) or not numbers[HAS_TO] or not same(RETRYABLES_ADDRESS, 0, row, TO_AT, len(RETRYABLES_ADDRESS)):
        return False
    end = _put_arguments(text, found, room, at)
    return (
        end >= 0
        and end - at == last - first - len(SUBMIT_SELECTOR)
        and same(SUBMIT_SELECTOR, 0, data, first, len(SUBMIT_SELECTOR))
        and same(room, at, data, first + len(SUBMIT_SELECTOR), end - at)
    )


@native
def _is_from_arbos(row: Bytes, numbers: Words) -> bool:
    """Return whether a call is from ArbOS to itself, without value."""
    size = len(ARBOS_ADDRESS)
    return (
        not _has_value(row)
        and numbers[HAS_SENDER] != 0
        and numbers[HAS_TO] != 0
        and same(ARBOS_ADDRESS, 0, row, SENDER_AT, size)
        and same(ARBOS_ADDRESS, 0, row, TO_AT, size)
    )


@native
def _is_call(found: Found, rule: int, row: Bytes, numbers: Words) -> bool:
    """Return whether the members that a form does not hash are what they must be. SUBMISSION is checked elsewhere."""
    if rule == HAS_NONCE:
        return bool(found[_NONCE, 0] >= 0)
    if rule == NO_INPUT:
        return bool(numbers[HAS_TO] and found[_INPUT, 1] - found[_INPUT, 0] == _NO_BYTES)
    return rule != ARBOS_CALL or _is_from_arbos(row, numbers)


@native
def _read_transaction(text: Text, found: Found, forms: Ends, header: Words, row: Bytes, numbers: Words) -> int:
    """Read a transaction's columns. Return its form, or -1."""
    kind = byte(text, found[_TYPE, 0], found[_TYPE, 1])
    form = forms[kind] if kind >= 0 else -1
    if form < 0:
        return -1
    numbers[KIND] = kind
    numbers[HAS_SENDER] = 1 if found[_FROM, 0] >= 0 else 0
    numbers[HAS_TO] = 1 if found[_TO, 0] >= 0 else 0
    numbers[NONCE_OF] = 0
    if (
        found[_HASH, 0] < 0
        or not read_bytes(text, found, TRANSACTION_COLUMNS, row)
        or not wide(text, found[_VALUE, 0], found[_VALUE, 1], row[VALUE_AT : VALUE_AT + 32])
        or (found[_NONCE, 0] >= 0 and not word(text, found[_NONCE, 0], found[_NONCE, 1], numbers, NONCE_OF))
        or not word(text, found[_GAS, 0], found[_GAS, 1], numbers, GAS_LIMIT_OF)
        or not _read_price(text, found, PRICES[form], header, numbers)
        or not _is_call(found, UNHASHED[form], row, numbers)
    ):
        return -1
    return form


@native
def read_transactions(
    text: Text, found: Objects, forms: Ends, header: Words, row: int, rows: ByteRows, numbers: Numbers, inputs: Bytes,
    input_ends: Places, items: Bytes, item_ends: Places, inner: Found, state: Words,
) -> bool:  # fmt: skip
    """Read a block's transactions into columns from ``row`` on, and their encodings into ``items``.

    Return False unless the keccak of each encoding is the hash that the node gave.
    """
    start, at = 0, 0 if row == 0 else input_ends[row - 1]
    for each in range(len(found)):
        at = decode(text, found[each, _INPUT, 0], found[each, _INPUT, 1], inputs, at)
        form = _read_transaction(text, found[each], forms, header, rows[row], numbers[row]) if at >= 0 else -1
        if form < 0:
            return False
        first = 0 if row == 0 else input_ends[row - 1]
        if UNHASHED[form] == SUBMISSION and not _is_submission(
            text, found[each], rows[row], numbers[row], inputs, first, at, items, start
        ):
            return False
        input_ends[row] = at
        end = _put_transaction(text, found[each], form, int(numbers[row, KIND]), items, start, inner)
        if end < 0 or end + 32 > len(items):
            return False
        keccak(items, start, end, items, end, state)
        if not same(items, end, rows[row], HASH_AT, 32):
            return False
        start = item_ends[each] = end
        row += 1
    return True
