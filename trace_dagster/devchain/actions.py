"""The actions of the chain: each reads the ledger, changes it, and returns the call that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from trace_dagster.devchain.constants import (
    CLAIM_REWARDS,
    COLLECTIBLE,
    DELEGATE,
    DEPOSIT,
    STAKING,
    TOKEN,
    TRANSFER,
    UNDELEGATE,
    WITHDRAW,
    WITHDRAWAL,
    WRAPPED,
    ZERO_ADDRESS,
)
from trace_dagster.devchain.crypto import Account
from trace_dagster.devchain.ledger import Ledger
from trace_dagster.devchain.transactions import DevCall, DevFrame, DevLog

VALIDATORS = 24
_LARGE = 2**130
"""Some mints exceed 128 bits, so that a type narrower than uint256 fails."""


class Actions:
    """The mix of transactions; all random numbers come from the block's generator."""

    def __init__(self, ledger: Ledger, accounts: list[Account]) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self._weights = [1 / (rank + 1) for rank in range(len(accounts))]
        self._mix: list[tuple[int, Callable[[Random, Account, int], DevCall]]] = [
            (22, self._native),
            (22, self._token_transfer),
            (9, self._token_mint),
            (4, self._token_burn),
            (9, self._wrapped_deposit),
            (5, self._wrapped_withdrawal),
            (6, self._wrapped_transfer),
            (5, self._collectible),
            (7, self._delegate),
            (3, self._undelegate),
            (2, self._withdraw),
            (2, self._claim),
            (2, self._create),
            (4, self._failing),
        ]

    def pick(self, rng: Random, block: int) -> tuple[Account, DevCall]:
        """Return a sender and its call."""
        sender = self._someone(rng)
        action = rng.choices([act for _, act in self._mix], [weight for weight, _ in self._mix])[0]
        return sender, action(rng, sender, block)

    def batch(self, rng: Random, transfers: int) -> tuple[Account, DevCall]:
        """Return a sender and one call that moves tokens so many times; without any it moves native currency."""
        sender = self._someone(rng)
        if not transfers:
            return sender, self._native(rng, sender, 0)
        logs = [self._transfer(rng, sender, TOKEN).logs[0] for _ in range(transfers)]
        return sender, DevCall(TOKEN, input=rng.randbytes(68), gas_used=30_000 * (transfers + 1), logs=tuple(logs))

    def _someone(self, rng: Random) -> Account:
        return rng.choices(self._accounts, self._weights)[0]

    def _native(self, rng: Random, sender: Account, block: int) -> DevCall:
        del sender, block
        return DevCall(self._someone(rng).address, value=rng.randrange(10**20))

    def _token_mint(self, rng: Random, sender: Account, block: int) -> DevCall:
        del sender
        amount = rng.randrange(_LARGE) if block % 40 == 7 else rng.randrange(10**24)
        to = self._someone(rng).address
        self._ledger.move(TOKEN, ZERO_ADDRESS, to, amount)
        return _token_call(
            TOKEN,
            "40c10f19",
            to,
            amount,
            DevLog(TOKEN, (TRANSFER, _word(ZERO_ADDRESS), _word(to)), _uint(amount)),
        )

    def _token_burn(self, rng: Random, sender: Account, block: int) -> DevCall:
        del block
        amount = self._part(rng, TOKEN, sender)
        self._ledger.move(TOKEN, sender.address, ZERO_ADDRESS, amount)
        topics = (TRANSFER, _word(sender.address), _word(ZERO_ADDRESS))
        return _token_call(TOKEN, "42966c68", sender.address, amount, DevLog(TOKEN, topics, _uint(amount)))

    def _token_transfer(self, rng: Random, sender: Account, block: int) -> DevCall:
        del block
        return self._transfer(rng, sender, TOKEN)

    def _wrapped_transfer(self, rng: Random, sender: Account, block: int) -> DevCall:
        del block
        return self._transfer(rng, sender, WRAPPED)

    def _transfer(self, rng: Random, sender: Account, token: bytes) -> DevCall:
        to, amount = self._someone(rng).address, self._part(rng, token, sender)
        self._ledger.move(token, sender.address, to, amount)
        log = DevLog(token, (TRANSFER, _word(sender.address), _word(to)), _uint(amount))
        return _token_call(token, "a9059cbb", to, amount, log)

    def _wrapped_deposit(self, rng: Random, sender: Account, block: int) -> DevCall:
        del block
        amount = rng.randrange(1, 10**21)
        self._ledger.move(WRAPPED, ZERO_ADDRESS, sender.address, amount)
        log = DevLog(WRAPPED, (DEPOSIT, _word(sender.address)), _uint(amount))
        return DevCall(WRAPPED, value=amount, input=bytes.fromhex("d0e30db0"), gas_used=45_000, logs=(log,))

    def _wrapped_withdrawal(self, rng: Random, sender: Account, block: int) -> DevCall:
        del block
        amount = self._part(rng, WRAPPED, sender)
        self._ledger.move(WRAPPED, sender.address, ZERO_ADDRESS, amount)
        log = DevLog(WRAPPED, (WITHDRAWAL, _word(sender.address)), _uint(amount))
        return DevCall(
            WRAPPED,
            input=bytes.fromhex("2e1a7d4d") + _uint(amount),
            gas_used=48_000,
            logs=(log,),
            frames=(DevFrame(sender.address, value=amount, gas_used=2_300),),
        )

    def _collectible(self, rng: Random, sender: Account, block: int) -> DevCall:
        to = self._someone(rng).address
        log = DevLog(COLLECTIBLE, (TRANSFER, _word(sender.address), _word(to), _uint(block)), b"")
        return DevCall(
            COLLECTIBLE,
            input=bytes.fromhex("23b872dd") + _word(sender.address) + _word(to),
            gas_used=80_000,
            logs=(log,),
        )

    def _delegate(self, rng: Random, sender: Account, block: int) -> DevCall:
        validator = min(rng.randrange(1, VALIDATORS + 1), rng.randrange(1, VALIDATORS + 1))
        amount = rng.randrange(10**18, 10**24)
        self._ledger.stake(validator, sender.address, amount)
        log = DevLog(STAKING, (DELEGATE, _uint(validator), _word(sender.address)), _uint(amount) + _uint(_epoch(block)))
        return DevCall(
            STAKING,
            value=amount,
            input=bytes.fromhex("84994fec") + _uint(validator),
            gas_used=260_000,
            logs=(log,),
        )

    def _undelegate(self, rng: Random, sender: Account, block: int) -> DevCall:
        mine = [key for key, amount in self._ledger.staked.items() if key[1] == sender.address and amount]
        if not mine:
            return self._delegate(rng, sender, block)
        validator, _ = mine[rng.randrange(len(mine))]
        amount = max(1, self._ledger.staked[validator, sender.address] // rng.choice((1, 2, 4)))
        self._ledger.stake(validator, sender.address, -amount)
        data = _uint(rng.randrange(256)) + _uint(amount) + _uint(_epoch(block))
        log = DevLog(STAKING, (UNDELEGATE, _uint(validator), _word(sender.address)), data)
        return DevCall(STAKING, input=bytes.fromhex("5cf41514") + _uint(validator), gas_used=147_000, logs=(log,))

    def _withdraw(self, rng: Random, sender: Account, block: int) -> DevCall:
        validator, amount = rng.randrange(1, VALIDATORS + 1), rng.randrange(1, 10**21)
        data = _uint(rng.randrange(256)) + _uint(amount) + _uint(block // 500)
        log = DevLog(STAKING, (WITHDRAW, _uint(validator), _word(sender.address)), data)
        frame = DevFrame(sender.address, value=amount, gas_used=0)
        return DevCall(
            STAKING,
            input=bytes.fromhex("aed2ee73") + _uint(validator),
            gas_used=68_000,
            logs=(log,),
            frames=(frame,),
        )

    def _claim(self, rng: Random, sender: Account, block: int) -> DevCall:
        validator, amount = rng.randrange(1, VALIDATORS + 1), rng.randrange(1, 10**19)
        log = DevLog(
            STAKING,
            (CLAIM_REWARDS, _uint(validator), _word(sender.address)),
            _uint(amount) + _uint(block // 500),
        )
        frame = DevFrame(sender.address, value=amount, gas_used=0)
        return DevCall(
            STAKING,
            input=bytes.fromhex("a76e2ca5") + _uint(validator),
            gas_used=155_000,
            logs=(log,),
            frames=(frame,),
        )

    def _create(self, rng: Random, sender: Account, block: int) -> DevCall:
        del block
        code = bytes.fromhex("600a600c600039600a6000f3") + rng.randbytes(10)
        return DevCall(None, input=code, gas_used=60_000, output=code[12:])

    def _failing(self, rng: Random, sender: Account, block: int) -> DevCall:
        """Return a transfer of tokens that the sender does not have: reverted, no log, no change."""
        del block
        data = bytes.fromhex("a9059cbb") + _word(self._someone(rng).address) + _uint(2**255)
        frame = DevFrame(TOKEN, input=data, gas_used=3_000, error="execution reverted", kind="DELEGATECALL")
        del sender
        return DevCall(TOKEN, input=data, gas_used=30_000, success=False, frames=(frame,))

    def _part(self, rng: Random, token: bytes, holder: Account) -> int:
        balance = self._ledger.current[token][holder.address]
        return balance if rng.randrange(12) == 0 else balance // rng.randrange(2, 9)


def _token_call(token: bytes, selector: str, to: bytes, amount: int, log: DevLog) -> DevCall:
    data = bytes.fromhex(selector) + _word(to) + _uint(amount)
    return DevCall(
        token,
        input=data,
        gas_used=52_000,
        logs=(log,),
        frames=(DevFrame(token, input=data, kind="DELEGATECALL"),),
    )


def _epoch(block: int) -> int:
    return block // 500 + 1


def _uint(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _word(address: bytes) -> bytes:
    return address.rjust(32, b"\x00")
