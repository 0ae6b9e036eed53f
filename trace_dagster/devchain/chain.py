"""A chain of blocks with valid headers, made one after the other from a seed.

The same seed gives the same hashes on every machine, because the only source of random numbers is ``random.Random``
over strings, whose algorithm is specified.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import rlp

from trace_dagster.devchain.actions import VALIDATORS, Actions
from trace_dagster.devchain.constants import (
    BASE_FEE_WEI,
    BLOCKS_PER_EPOCH,
    EPOCH_CHANGED,
    FINAL_BEHIND,
    GAS_LIMIT,
    GENESIS_SUPPLY_WEI,
    GENESIS_TIMESTAMP,
    REWARD_WEI,
    STAKING,
    VALIDATOR_CREATED,
    VALIDATOR_REWARDED,
    ZERO_ADDRESS,
)
from trace_dagster.devchain.crypto import (
    EMPTY_LIST_HASH,
    EMPTY_REQUESTS_HASH,
    EMPTY_TRIE_ROOT,
    Account,
    keccak,
    list_root,
)
from trace_dagster.devchain.ledger import Ledger
from trace_dagster.devchain.transactions import DevCall, DevLog, DevTransaction, encode_receipt, sign

ACCOUNTS = 60
_EMPTY_EVERY = 11
"""Every block whose number is a multiple of this is empty, without a reward."""


@dataclass(frozen=True, slots=True)
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


class DevChain:
    """A seeded chain that grows with :meth:`mine`; ``ledger`` has the expected answers about balances and stakes."""

    def __init__(self, seed: int, blocks: int = 0) -> None:
        self.seed = seed
        self.blocks: list[DevBlock] = []
        self.ledger = Ledger()
        self.numbers: dict[bytes, int] = {}
        """Block number by block hash."""
        self.locations: dict[bytes, tuple[int, int]] = {}
        """(block, index) by transaction hash."""
        self._accounts = [Account(f"devchain/{seed}/{index}") for index in range(ACCOUNTS)]
        self._system = Account(f"devchain/{seed}/system")
        self._actions = Actions(self.ledger, self._accounts)
        self._native_supply: list[int] = []
        self._announced = 0
        self._epoch = 1
        self.grow(blocks)

    @property
    def head(self) -> int:
        """The number of the newest block."""
        return len(self.blocks) - 1

    @property
    def finalized(self) -> int:
        """The highest final block."""
        return max(0, self.head - FINAL_BEHIND)

    def grow(self, blocks: int) -> None:
        """Mine until the chain has ``blocks`` blocks."""
        while len(self.blocks) < blocks:
            self.mine()

    def mine(self) -> DevBlock:
        """Append the next block."""
        number = len(self.blocks)
        rng = Random(f"devchain/{self.seed}/{number}")  # noqa: S311  (determinism is the point)
        self.ledger.open_block()
        transactions = self._transactions(rng, number)
        block = _assemble(number, self.blocks[-1].hash if self.blocks else bytes(32), transactions, rng)
        self.blocks.append(block)
        self.numbers[block.hash] = number
        for index, transaction in enumerate(transactions):
            self.locations[transaction.hash] = (number, index)
        self._native_supply.append(self._supply_after(block))
        return block

    def native_supply(self, block: int) -> int:
        """Native supply after ``block``: genesis + rewards - burned base fees, in wei."""
        return self._native_supply[block]

    def rows(self, dataset: str, start: int, end: int) -> int:
        """Return the number of rows that Cryo must return for ``[start, end)``: blocks, transactions, logs or
        geth_calls.
        """
        span = self.blocks[start:end]
        match dataset:
            case "blocks":
                return len(span)
            case "transactions":
                return sum(len(block.transactions) for block in span)
            case "logs":
                return sum(block.log_count for block in span)
            case "geth_calls":
                return sum(block.frame_count for block in span)
        raise ValueError(f"no count is kept for dataset {dataset}")

    def _transactions(self, rng: Random, number: int) -> list[DevTransaction]:
        if number == 0 or number % _EMPTY_EVERY == 0:
            return []
        found = [sign(0, self._system, self._reward(rng, number), tip=0, salt=bytes(32))]
        for _ in range(rng.choices((0, 1, 2, 3, 4, 5, 6, 8, 12), (4, 8, 14, 18, 18, 14, 12, 8, 4))[0]):
            sender, call = self._actions.pick(rng, number)
            kind = 2 if call.to is None else rng.choices((2, 0, 1, 4), (68, 22, 6, 4))[0]
            found.append(sign(kind, sender, call, tip=rng.randrange(10**9, 10**10), salt=rng.randbytes(32)))
        return found

    def _reward(self, rng: Random, number: int) -> DevCall:
        """Return the call that pays the block reward. Some blocks' calls also log a new validator or a new epoch."""
        validator = rng.randrange(1, VALIDATORS + 1)
        epoch = number // BLOCKS_PER_EPOCH + 1
        logs = [
            DevLog(
                STAKING,
                (VALIDATOR_REWARDED, _uint(validator), self._system.address.rjust(32, b"\x00")),
                _uint(REWARD_WEI) + _uint(epoch),
            )
        ]
        if self._announced < VALIDATORS:
            self._announced += 1
            authority = self._accounts[self._announced % ACCOUNTS].address.rjust(32, b"\x00")
            logs.append(DevLog(STAKING, (VALIDATOR_CREATED, _uint(self._announced), authority), _uint(10**17)))
        if epoch > self._epoch:
            logs.append(DevLog(STAKING, (EPOCH_CHANGED,), _uint(self._epoch) + _uint(epoch)))
            self._epoch = epoch
        data = bytes.fromhex("791bdcf3") + self._accounts[validator].address.rjust(32, b"\x00")
        return DevCall(STAKING, value=REWARD_WEI, input=data, gas_used=0, logs=tuple(logs), free=True)

    def _supply_after(self, block: DevBlock) -> int:
        before = self._native_supply[-1] if self._native_supply else GENESIS_SUPPLY_WEI
        rewards = sum(transaction.call.value for transaction in block.transactions if transaction.call.free)
        return before + rewards - block.gas_used * BASE_FEE_WEI


def _assemble(number: int, parent: bytes, transactions: list[DevTransaction], rng: Random) -> DevBlock:
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
        "timestamp": GENESIS_TIMESTAMP + number // 2,  # two blocks per second
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


def _uint(value: int) -> bytes:
    return value.to_bytes(32, "big")
