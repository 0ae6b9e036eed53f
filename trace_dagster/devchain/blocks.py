"""A block of the devchain: its header, its hash, and the transactions and receipts that the header commits to."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import rlp

from trace_dagster.devchain.constants import BASE_FEE_WEI, GAS_LIMIT, ZERO_ADDRESS
from trace_dagster.devchain.crypto import EMPTY_LIST_HASH, EMPTY_REQUESTS_HASH, EMPTY_TRIE_ROOT, keccak, list_root
from trace_dagster.devchain.transactions import DevTransaction, encode_receipt


@dataclass(frozen=True, slots=True, eq=False)
class DevBlock:
    """A block with all data that a node returns about it. Amounts in wei, times in seconds."""

    number: int
    hash: bytes
    parent_hash: bytes
    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    bloom: bytes
    miner: bytes
    gas_used: int
    timestamp: int
    extra_data: bytes
    mix_hash: bytes
    transactions: tuple[DevTransaction, ...]
    receipt_blooms: tuple[bytes, ...]
    size: int

    @property
    def log_count(self) -> int:
        """Number of logs in the block."""
        return sum(len(transaction.logs) for transaction in self.transactions)

    @property
    def frame_count(self) -> int:
        """Number of call frames in the block: the root of each transaction and its inner calls."""
        return sum(1 + len(transaction.call.frames) for transaction in self.transactions)


def assemble(number: int, parent: bytes, transactions: list[DevTransaction], timestamp: int, rng: Random) -> DevBlock:
    """Return the block with these transactions. ``timestamp`` is in seconds."""
    cumulative, receipts, blooms = 0, [], []
    for transaction in transactions:
        cumulative += transaction.gas_used
        encoded, bloom = encode_receipt(transaction, cumulative)
        receipts.append(encoded)
        blooms.append(bloom)
    header = {
        "parent_hash": parent,
        "miner": rng.randbytes(20) if number else ZERO_ADDRESS,
        "state_root": keccak(b"state" + parent + number.to_bytes(8, "big")),
        "transactions_root": list_root([transaction.encoded for transaction in transactions]),
        "receipts_root": list_root(receipts),
        "bloom": _union(blooms),
        "gas_used": cumulative,
        "timestamp": timestamp,
        "extra_data": f"devchain {number}".encode()[:32],
        "mix_hash": rng.randbytes(32),
    }
    encoded_header = encode_header(number, **header)  # type: ignore[arg-type]
    return DevBlock(
        number=number,
        hash=keccak(encoded_header),
        transactions=tuple(transactions),
        receipt_blooms=tuple(blooms),
        size=len(encoded_header) + sum(len(transaction.encoded) for transaction in transactions) + 6,
        **header,  # type: ignore[arg-type]
    )


def encode_header(
    number: int,
    *,
    parent_hash: bytes,
    miner: bytes,
    state_root: bytes,
    transactions_root: bytes,
    receipts_root: bytes,
    bloom: bytes,
    gas_used: int,
    timestamp: int,
    extra_data: bytes,
    mix_hash: bytes,
) -> bytes:
    """Return the RLP of a header with all fields up to Prague; its keccak is the block hash."""
    encoded: bytes = rlp.encode(
        [
            parent_hash,
            EMPTY_LIST_HASH,
            miner,
            state_root,
            transactions_root,
            receipts_root,
            bloom,
            0,
            number,
            GAS_LIMIT,
            gas_used,
            timestamp,
            extra_data,
            mix_hash,
            bytes(8),
            BASE_FEE_WEI,
            EMPTY_TRIE_ROOT,  # withdrawals
            0,  # blob gas used
            0,  # excess blob gas
            bytes(32),  # parent beacon block root
            EMPTY_REQUESTS_HASH,
        ]
    )
    return encoded


def _union(blooms: list[bytes]) -> bytes:
    bits = 0
    for bloom in blooms:
        bits |= int.from_bytes(bloom, "big")
    return bits.to_bytes(256, "big")
