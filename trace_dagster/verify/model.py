"""Evidence: proven headers, transactions and receipts of a piece. Sequences have one entry per block, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, NamedTuple, TypeVar, overload

import msgspec
import pyarrow as pa

from trace_dagster.datasets.chain import TransactionForm
from trace_dagster.errors import Part

Log = tuple[bytes, tuple[bytes, ...], bytes]
"""(address, topics, data): 20 bytes, up to four topics of 32 bytes, and bytes of any length."""

ReceiptForm = Literal["standard", "unknown", "arbitrum_classic", "outside_root"]
"""How a receipt is encoded: with its type's byte and four fields; the same, where the chain's row does not say so;
without type and status; or not at all (Polygon's state-sync receipts before Madhugiri).
"""


class ReceiptFields(NamedTuple):
    """The fields that a receipts root covers."""

    kind: int
    """The type, 0 if the encoding starts with no type byte."""
    first: bytes
    """The encoded first field: the status, or before Byzantium the state root."""
    cumulative_gas: int
    logs: Sequence[Log]
    tails: tuple[bytes, ...] = ()
    """Encoded fields behind the logs. Several if the answer does not show which: one of them gives the root."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """A block's header. Hashes and roots have 32 bytes, the bloom 256, the author 20; times in seconds, fees in wei.

    ``base_fee_per_gas`` is None before London. The other optional fields are None if a stored table lacks their column.
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
    is_proven: bool = True
    """False if the chain's form leaves the header open: then its members are what the node claims."""
    size: int | None = None
    """Bytes of the block, as the node claims: not a member of the header. None unless a source of rows needs it."""
    total_difficulty: int | None = None
    """Difficulty of the chain up to this block, as the node claims; None like ``size``, or if the node has none."""


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """A transaction that the transactions root covers. It does not cover ``sender``, which the node claims.

    Amounts are in wei. ``gas_price`` is the effective price that the sender pays per unit of gas (EIP-1559). Forms that
    carry their sender prove it; forms without a price, or without a nonce, have what the node claims of them
    (``datasets.chain.CLAIMED_COLUMNS``).
    """

    hash: bytes
    kind: int
    sender: bytes | None
    to: bytes | None
    value: int
    nonce: int
    gas_limit: int
    gas_price: int | None
    max_fee_per_gas: int | None
    max_priority_fee_per_gas: int | None
    input: bytes
    form: TransactionForm | None = None
    """The form of its type on its chain; None for types 0 to 4."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A receipt that the receipts root covers. It does not cover ``transaction_hash``, which the node claims.

    Before Byzantium (EIP-658) ``post_state`` has 32 bytes and ``succeeded`` is None.
    """

    kind: int
    succeeded: bool | None
    cumulative_gas: int
    gas_used: int
    transaction_hash: bytes | None
    logs: tuple[Log, ...]
    post_state: bytes | None = None
    form: ReceiptForm = "standard"
    tails: tuple[bytes, ...] = ()
    """See :class:`ReceiptFields`."""


@dataclass(frozen=True)
class ProvenRows:
    """Proven transactions and logs of consecutive blocks as tables, with Cryo's column names and row order.

    The roots prove all columns except ``from_address``, which the node claims. Each receipt belongs to its transaction.
    Columns of ``transactions``: block_number, transaction_index, transaction_hash, transaction_type, nonce,
    from_address, to_address, value_binary, input, gas_limit, gas_price, max_fee_per_gas, max_priority_fee_per_gas,
    success, gas_used. Columns of ``logs``: block_number, transaction_index, log_index, transaction_hash, address,
    topic0 to topic3, data.
    """

    transactions: pa.Table
    logs: pa.Table
    transaction_ends: list[int]
    """For each block, the index of the row after its last transaction."""
    log_ends: list[int]
    """For each block, the index of the row after its last log."""

    def slice_blocks(self, start: int, end: int) -> ProvenRows:
        """Return the rows of blocks ``start`` to ``end`` (exclusive), counted from the first block of these rows."""
        transactions, logs = _first(self.transaction_ends, start), _first(self.log_ends, start)
        return ProvenRows(
            self.transactions.slice(transactions, _first(self.transaction_ends, end) - transactions),
            self.logs.slice(logs, _first(self.log_ends, end) - logs),
            [each - transactions for each in self.transaction_ends[start:end]],
            [each - logs for each in self.log_ends[start:end]],
        )

    @staticmethod
    def concat(parts: Sequence[ProvenRows]) -> ProvenRows:
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
        """Return the bytes that both tables take in memory."""
        return int(self.transactions.nbytes + self.logs.nbytes)


def _first(ends: Sequence[int], block: int) -> int:
    """Return the index of a block's first row."""
    return ends[block - 1] if block else 0


Item = TypeVar("Item")


class LazySequence(Sequence[Item], Generic[Item]):
    """A sequence of known length whose items are made at the first access. Most datasets only need the columns."""

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
    """The evidence of a piece. ``source`` maps each part (headers, transactions, receipts) to its origin."""

    headers: Sequence[Header]
    transactions: Sequence[Sequence[Transaction]] | None = None
    receipts: Sequence[Sequence[Receipt]] | None = None
    source: dict[str, str] = msgspec.field(default_factory=dict)
    proven: Sequence[Sequence[ReceiptFields] | None] | None = None
    """The receipts' fields, if they are known to give the headers' roots. Equal rows then need no new root."""
    rows: ProvenRows | None = None
    """The same transactions and receipts as tables, if the compiled code proved them."""
    open: Mapping[int, Mapping[Part, str]] = msgspec.field(default_factory=dict)
    """Parts of blocks, by number, that no proof covers, with the reason. Their values are what the node claims."""

    def run(self, start: int, end: int, left_out: Collection[Part]) -> Evidence:
        """Return the evidence of consecutive blocks, counted from the first, without the parts in ``left_out``."""
        return Evidence(
            headers=self.headers[start:end],
            transactions=None
            if self.transactions is None or "transactions" in left_out
            else self.transactions[start:end],
            receipts=None if self.receipts is None or "receipts" in left_out else self.receipts[start:end],
            source=self.source,
            proven=None if self.proven is None or "receipts" in left_out else self.proven[start:end],
            rows=None if self.rows is None else self.rows.slice_blocks(start, end),
        )
