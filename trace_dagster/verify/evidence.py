"""What was proven of a piece, ready to compare rows with. One entry per block, in order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

Log = tuple[bytes, tuple[bytes, ...], bytes]
"""(address, topics, data): 20 bytes, up to four times 32 bytes, any number of bytes."""

Outcome = tuple[int, bytes, int, Sequence[Log]]
"""What a receipts root is made of: (type, encoded first field, cumulative gas, logs)."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """A block's header: hashes and roots 32 bytes, bloom 256, author 20; times in seconds, fees in wei.

    ``base_fee_per_gas`` is None before London; the other optional fields when a stored table lacks them.
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
    """A transaction the transactions root covers, but for ``sender``: that is what the node said.

    Amounts in wei. ``gas_price`` is what one unit of gas costs the sender (EIP-1559).
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
    """A receipt the receipts root covers, but for ``transaction_hash``: that is what the node said.

    Before Byzantium (EIP-658) ``post_state`` holds 32 bytes and ``succeeded`` is None.
    """

    kind: int
    succeeded: bool | None
    cumulative_gas: int
    gas_used: int
    transaction_hash: bytes | None
    logs: tuple[Log, ...]
    post_state: bytes | None = None


class Evidence(msgspec.Struct, frozen=True):
    """Everything known about a piece; ``source`` says where each part came from."""

    headers: Sequence[Header]
    transactions: Sequence[Sequence[Transaction]] | None = None
    receipts: Sequence[Sequence[Receipt]] | None = None
    source: dict[str, str] = msgspec.field(default_factory=dict)
    proven: Sequence[Sequence[Outcome]] | None = None
    """The receipts once more, where they are known to give their headers' roots: for rows that say the same."""
