"""The rows that the compiled proof fills."""

from __future__ import annotations

import numpy as np

from trace_dagster.verify.native.encode import fixed
from trace_dagster.verify.native.forms import HEADER, TRANSACTION
from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.types import Bytes, Found, Table, Text

HEADER_BYTES = {
    "hash": ("hash", 32), "parent_hash": ("parentHash", 32), "transactions_root": ("transactionsRoot", 32),
    "receipts_root": ("receiptsRoot", 32), "logs_bloom": ("logsBloom", 256), "state_root": ("stateRoot", 32),
    "author": ("miner", 20),
}  # fmt: skip
"""Header columns of fixed size: the member to read, and its bytes."""
TRANSACTION_BYTES = {"hash": ("hash", 32), "sender": ("from", 20), "to": ("to", 20)}
"""Transaction columns of fixed size; 32 bytes of value follow them in a row."""
VALUE_AT, TOPICS_AT = sum(size for _, size in TRANSACTION_BYTES.values()), 20
MOST_TOPICS = 4
HEADER_NUMBERS = ("gas_used", "timestamp", "base_fee", "has_base_fee")
TRANSACTION_NUMBERS = (
    "kind", "has_sender", "has_to", "nonce", "gas_limit", "has_gas_price", "gas_price", "has_cap", "cap", "has_tip",
    "tip", "succeeded", "cumulative_gas", "gas_used",
)  # fmt: skip
LOG_NUMBERS = ("transaction", "topics")
BASE_FEE_OF, HAS_BASE_FEE = 2, 3
(
    KIND, HAS_SENDER, HAS_TO, NONCE_OF, GAS_LIMIT_OF, HAS_PRICE, GAS_PRICE_OF, HAS_CAP, CAP_OF, HAS_TIP, TIP_OF,
    SUCCEEDED, CUMULATIVE_OF, GAS_USED_OF,
) = range(len(TRANSACTION_NUMBERS))  # fmt: skip


def _members(names: tuple[str, ...], columns: dict[str, tuple[str, int]]) -> Table:
    """Return (member, first byte in the row, size) of each column."""
    sizes = [size for _, size in columns.values()]
    firsts = np.cumsum([0, *sizes[:-1]])
    rows = zip(columns.values(), firsts, strict=True)
    return np.array([(names.index(name), at, size) for (name, size), at in rows], np.int64)


HEADER_COLUMNS, TRANSACTION_COLUMNS = _members(HEADER, HEADER_BYTES), _members(TRANSACTION, TRANSACTION_BYTES)
HASH_AT, _, TRANSACTIONS_ROOT_AT, RECEIPTS_ROOT_AT, BLOOM_AT, *_ = HEADER_COLUMNS[:, 1].tolist()
_, SENDER_AT, TO_AT = TRANSACTION_COLUMNS[:, 1].tolist()


@native
def same(one: Text, at: int, other: Bytes, place: int, size: int) -> bool:
    for step in range(size):
        if one[at + step] != other[place + step]:
            return False
    return True


@native
def read_bytes(text: Text, found: Found, columns: Table, row: Bytes) -> bool:
    """Decode a block's fixed-size fields into a row. Skip a missing field."""
    for column in range(len(columns)):
        which, at, size = columns[column]
        if found[which, 0] >= 0 and fixed(text, found[which, 0], found[which, 1], size, row, at) < 0:
            return False
    return True
