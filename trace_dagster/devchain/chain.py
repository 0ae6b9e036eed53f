"""A chain of blocks with valid headers, made one after the other from a seed.

The same seed gives the same hashes on every machine, because the only source of random numbers is ``random.Random``
over strings, whose algorithm is specified.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from trace_dagster.devchain.actions import VALIDATORS, Actions
from trace_dagster.devchain.blocks import DevBlock, assemble
from trace_dagster.devchain.constants import (
    BASE_FEE_WEI,
    BLOCKS_PER_EPOCH,
    EPOCH_CHANGED,
    FINAL_BEHIND,
    GENESIS_SUPPLY_WEI,
    GENESIS_TIMESTAMP,
    REWARD_WEI,
    STAKING,
    VALIDATOR_CREATED,
    VALIDATOR_REWARDED,
)
from trace_dagster.devchain.crypto import Account
from trace_dagster.devchain.ledger import Ledger
from trace_dagster.devchain.transactions import DevCall, DevLog, DevTransaction, sign

ACCOUNTS = 60
_EMPTY_EVERY = 11
"""Every block whose number is a multiple of this is empty, without a reward."""


@dataclass(frozen=True, slots=True)
class BusyBlocks:
    """The size of every block: exactly so many transactions, and so many logs in total."""

    transactions: int
    logs: int


@dataclass(frozen=True, slots=True)
class _Totals:
    """Running values after a block."""

    native_supply: int = GENESIS_SUPPLY_WEI
    validators: int = 0
    epoch: int = 1


class DevChain:
    """A seeded chain that grows with :meth:`mine`; ``ledger`` has the expected answers about balances and stakes.

    One thread at a time may change it, while others read it: a reorganisation becomes visible in one step.
    """

    def __init__(self, seed: int, blocks: int = 0) -> None:
        self.seed = seed
        self.blocks: list[DevBlock] = []
        self.ledger = Ledger()
        self.by_hash: dict[bytes, DevBlock] = {}
        self.locations: dict[bytes, tuple[DevBlock, int]] = {}
        """(block, index) by transaction hash."""
        self.forks = 0
        """Number of reorganisations so far."""
        self.final_behind = FINAL_BEHIND
        """Blocks between the newest block and the finalized one."""
        self.busy: BusyBlocks | None = None
        """The size of the blocks that are mined from now on; None for the usual mix."""
        self.clock: Callable[[], float] | None = None
        """Gives the time of new blocks, in seconds; None for two blocks a second from the genesis on."""
        self.keeps_orphans = False
        """True if blocks of abandoned branches can still be found by hash, as in most nodes."""
        self.listeners: list[Callable[[DevBlock], None]] = []
        """Called with each new block of the chain, in order, in the thread that mines."""
        self._accounts = [Account(f"devchain/{seed}/{index}") for index in range(ACCOUNTS)]
        self._system = Account(f"devchain/{seed}/system")
        self._signers = {account.address: account for account in (*self._accounts, self._system)}
        self._actions = Actions(self.ledger, self._accounts)
        self._totals: list[_Totals] = []
        self._lock = threading.RLock()
        self.grow(blocks)

    @property
    def head(self) -> int:
        """The number of the newest block."""
        return len(self.blocks) - 1

    @property
    def safe(self) -> int:
        """The highest safe block: half the way from the finalized one to the newest one."""
        return max(0, self.head - (self.final_behind + 1) // 2)

    @property
    def finalized(self) -> int:
        """The highest final block."""
        return max(0, self.head - self.final_behind)

    def grow(self, blocks: int) -> None:
        """Mine until the chain has ``blocks`` blocks."""
        while len(self.blocks) < blocks:
            self.mine()

    def mine(self) -> DevBlock:
        """Append the next block."""
        with self._lock:
            block = self._mine_onto(self.blocks)
            self._announce([block])
        return block

    def reorg(self, depth: int, blocks: int) -> DevBlock:
        """Replace the last ``depth`` blocks by ``blocks`` others, and return the new head.

        The branch depends on the seed and on the number of earlier reorganisations. The branch of every second
        reorganisation repeats the transactions of the first chain in other blocks; the others have new transactions.

        Raises ValueError if the chain has no block below the removed ones.
        """
        with self._lock:
            if not 0 < depth <= self.head or blocks < 0:
                raise ValueError(f"cannot replace the last {depth} of {len(self.blocks)} blocks by {blocks} others")
            branch, gone = self.blocks[:-depth], self.blocks[-depth:]
            for block in reversed(gone):
                self._undo(block)
            self.forks += 1
            new = [self._mine_onto(branch) for _ in range(blocks)]
            self.blocks = branch
            self._forget(gone, new)
            self._announce(new)
            return branch[-1]

    def _mine_onto(self, blocks: list[DevBlock]) -> DevBlock:
        number = len(blocks)
        content, header = self._random(number)
        self.ledger.open_block()
        totals = self._totals[-1] if self._totals else _Totals()
        transactions = self._transactions(content, number, totals)
        parent, timestamp = (blocks[-1].hash, blocks[-1].timestamp) if blocks else (bytes(32), 0)
        block = assemble(number, parent, transactions, self._timestamp(number, timestamp), header)
        self.by_hash[block.hash] = block
        for index, transaction in enumerate(transactions):
            self.locations[transaction.hash] = (block, index)
        self._totals.append(_totals_after(totals, block))
        blocks.append(block)
        return block

    def _random(self, number: int) -> tuple[Random, Random]:
        """Return the generators of a block's transactions and of its header; before the first fork it is one."""
        name = f"devchain/{self.seed}/{number}"
        content = Random(name if self.forks % 2 == 0 else f"{name}/{self.forks}")  # noqa: S311  (determinism is the point)
        return content, content if not self.forks else Random(f"{name}/{self.forks}/header")  # noqa: S311

    def _timestamp(self, number: int, parent: int) -> int:
        if self.clock is None:
            return max(parent, GENESIS_TIMESTAMP + number // 2)
        return max(parent, int(self.clock()))

    def _undo(self, block: DevBlock) -> None:
        """Take back the changes of the newest block."""
        self.ledger.undo_block()
        self._totals.pop()
        for transaction in reversed(block.transactions):
            self._signers[transaction.sender].nonce = transaction.nonce

    def _forget(self, gone: Sequence[DevBlock], new: Sequence[DevBlock]) -> None:
        """Remove abandoned blocks from the indexes; transactions that the new blocks have too stay."""
        mined = {transaction.hash for block in new for transaction in block.transactions}
        for block in gone:
            if not self.keeps_orphans:
                del self.by_hash[block.hash]
            for transaction in block.transactions:
                if transaction.hash not in mined:
                    del self.locations[transaction.hash]

    def _announce(self, blocks: Sequence[DevBlock]) -> None:
        for block in blocks:
            for listener in tuple(self.listeners):
                listener(block)

    def native_supply(self, block: int) -> int:
        """Native supply after ``block``: genesis + rewards - burned base fees, in wei."""
        return self._totals[block].native_supply

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

    def _transactions(self, rng: Random, number: int, totals: _Totals) -> list[DevTransaction]:
        if self.busy is not None:
            return self._busy_transactions(rng, self.busy)
        if number == 0 or number % _EMPTY_EVERY == 0:
            return []
        found = [sign(0, self._system, self._reward(rng, number, totals), tip=0, salt=bytes(32))]
        for _ in range(rng.choices((0, 1, 2, 3, 4, 5, 6, 8, 12), (4, 8, 14, 18, 18, 14, 12, 8, 4))[0]):
            sender, call = self._actions.pick(rng, number)
            kind = 2 if call.to is None else rng.choices((2, 0, 1, 4), (68, 22, 6, 4))[0]
            found.append(sign(kind, sender, call, tip=rng.randrange(10**9, 10**10), salt=rng.randbytes(32)))
        return found

    def _busy_transactions(self, rng: Random, busy: BusyBlocks) -> list[DevTransaction]:
        found = []
        for index in range(busy.transactions):
            logs = busy.logs * (index + 1) // busy.transactions - busy.logs * index // busy.transactions
            sender, call = self._actions.batch(rng, logs)
            found.append(sign(2, sender, call, tip=rng.randrange(10**9, 10**10), salt=b""))
        return found

    def _reward(self, rng: Random, number: int, totals: _Totals) -> DevCall:
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
        if totals.validators < VALIDATORS:
            created = totals.validators + 1
            authority = self._accounts[created % ACCOUNTS].address.rjust(32, b"\x00")
            logs.append(DevLog(STAKING, (VALIDATOR_CREATED, _uint(created), authority), _uint(10**17)))
        if epoch > totals.epoch:
            logs.append(DevLog(STAKING, (EPOCH_CHANGED,), _uint(totals.epoch) + _uint(epoch)))
        data = bytes.fromhex("791bdcf3") + self._accounts[validator].address.rjust(32, b"\x00")
        return DevCall(STAKING, value=REWARD_WEI, input=data, gas_used=0, logs=tuple(logs), free=True)


def _totals_after(before: _Totals, block: DevBlock) -> _Totals:
    rewards = [transaction.call.value for transaction in block.transactions if transaction.call.free]
    return _Totals(
        before.native_supply + sum(rewards) - block.gas_used * BASE_FEE_WEI,
        min(VALIDATORS, before.validators + len(rewards)),
        block.number // BLOCKS_PER_EPOCH + 1 if rewards else before.epoch,
    )


def _uint(value: int) -> bytes:
    return value.to_bytes(32, "big")
