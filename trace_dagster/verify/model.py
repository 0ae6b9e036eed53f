"""What was proven of a piece, in the form that rows are compared with: one entry per block, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar, overload

import msgspec
import pyarrow as pa

Log = tuple[bytes, tuple[bytes, ...], bytes]
"""(address, topics, data): 20 bytes, up to four times 32 bytes, any number of bytes."""

Outcome = tuple[int, bytes, int, Sequence[Log]]
"""The part of a receipt that the receipts root covers: (type, encoded first field, cumulative gas, logs)."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """A block's header. Hashes and roots have 32 bytes, bloom 256, author 20; times are in seconds, fees in wei.

    ``base_fee_per_gas`` is None before London. The other optional fields are None if a stored table lacks them.
    """

    number: int
    hash: bytes
    parent_hash: bytes
    transactions_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    state_root: bytes | None = None
    author: bytes | None = None
    gas_used: int | None = None
    extra_data: bytes | None = None
    timestamp: int | None = None
    base_fee_per_gas: int | None = None


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """A transaction. The transactions root covers every field but ``sender``, which is the node's word.

    Amounts are in wei. ``gas_price`` is the sender's cost of one unit of gas (EIP-1559).
    """

    hash: bytes
    kind: int
    sender: bytes | None
    to: bytes | None
    value: int
    nonce: int
    gas_limit: int
    gas_price: int
    max_fee_per_gas: int | None
    max_priority_fee_per_gas: int | None
    input: bytes


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A receipt. The receipts root covers every field but ``transaction_hash``, which is the node's word.

    Before Byzantium (EIP-658) ``post_state`` holds 32 bytes and ``succeeded`` is None.
    """

    kind: int
    succeeded: bool | None
    cumulative_gas: int
    gas_used: int
    transaction_hash: bytes | None
    logs: tuple[Log, ...]
    post_state: bytes | None = None


@dataclass(frozen=True)
class ProvenRows:
    """Transactions and logs of consecutive blocks as tables, with the names and order of Cryo's columns.

    The columns that the roots cover are proven, and each receipt belongs to its transaction. ``from_address`` is the
    node's word.
    """

    transactions: pa.Table
    logs: pa.Table
    transaction_ends: list[int]
    """For each block, the row behind its last transaction."""
    log_ends: list[int]

    def of(self, start: int, end: int) -> ProvenRows:
        """Return the rows of some of the blocks, counted from the first."""
        transactions, logs = _first(self.transaction_ends, start), _first(self.log_ends, start)
        return ProvenRows(
            self.transactions.slice(transactions, _first(self.transaction_ends, end) - transactions),
            self.logs.slice(logs, _first(self.log_ends, end) - logs),
            [each - transactions for each in self.transaction_ends[start:end]],
            [each - logs for each in self.log_ends[start:end]],
        )

    @staticmethod
    def joined(parts: Sequence[ProvenRows]) -> ProvenRows:
        """Return the rows of consecutive parts as one."""
        transaction_ends: list[int] = []
        log_ends: list[int] = []
        for part in parts:
            transactions, logs = _first(transaction_ends, len(transaction_ends)), _first(log_ends, len(log_ends))
            transaction_ends += [transactions + each for each in part.transaction_ends]
            log_ends += [logs + each for each in part.log_ends]
        return ProvenRows(
            pa.concat_tables([part.transactions for part in parts]),
            pa.concat_tables([part.logs for part in parts]),
            transaction_ends,
            log_ends,
        )

    @property
    def nbytes(self) -> int:
        """Size of the tables in bytes."""
        return int(self.transactions.nbytes + self.logs.nbytes)


def _first(ends: Sequence[int], block: int) -> int:
    """Return the first row of a block."""
    return ends[block - 1] if block else 0


Item = TypeVar("Item")


class LazySequence(Sequence[Item], Generic[Item]):
    """A sequence of a known length that is made when it is first read. Few datasets need more than columns."""

    def __init__(self, length: int, make: Callable[[], Sequence[Item]]) -> None:
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        return self._items[at]

    @cached_property
    def _items(self) -> Sequence[Item]:
        return self._make()


class Evidence(msgspec.Struct, frozen=True):
    """The evidence of a piece. ``source`` maps each part to where it came from."""

    headers: Sequence[Header]
    transactions: Sequence[Sequence[Transaction]] | None = None
    receipts: Sequence[Sequence[Receipt]] | None = None
    source: dict[str, str] = msgspec.field(default_factory=dict)
    proven: Sequence[Sequence[Outcome]] | None = None
    """The receipts in encoded form, if they are known to give their headers' roots: equal rows need no second proof."""
    rows: ProvenRows | None = None
    """Transactions and logs as tables, if they were proven in columns."""
