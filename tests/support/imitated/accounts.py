"""Key pairs that sign imitated transactions."""

from __future__ import annotations

from functools import cache

from coincurve import PrivateKey

from tests.support.imitated.encoding import keccak, rlp
from tests.support.imitated.hexadecimal import Json, octets, quantity, shown
from tests.support.imitated.transactions import Family, kind_of, signed_hash, transaction_hash


class Account:
    """A key derived from a seed, and its address."""

    def __init__(self, seed: str) -> None:
        self._key = PrivateKey(keccak(seed.encode()))
        self.address = shown(keccak(self._key.public_key.format(compressed=False)[1:])[12:])

    def signed(self, transaction: Json, family: Family) -> Json:
        """Return the transaction with this account as sender, its signature and its hash."""
        signature = self._key.sign_recoverable(signed_hash(transaction, family), hasher=None)
        parity = signature[64]
        whole = {**transaction, "from": self.address, **_signature(transaction, parity)}
        whole["r"] = hex(int.from_bytes(signature[:32], "big"))
        whole["s"] = hex(int.from_bytes(signature[32:64], "big"))
        return {**whole, "hash": shown(transaction_hash(whole, family))}


@cache
def account(number: int) -> Account:
    """Return one of a fixed set of accounts."""
    return Account(f"imitated account {number}")


def created_by(sender: str, nonce: str) -> str:
    """Return the address of a contract that a transaction creates."""
    return shown(keccak(rlp([octets(sender), quantity(nonce)]))[12:])


def _signature(transaction: Json, parity: int) -> Json:
    if kind_of(transaction):
        return {"v": hex(parity), "yParity": hex(parity)}
    if transaction.get("chainId"):
        return {"v": hex(35 + 2 * quantity(transaction["chainId"]) + parity)}
    return {"v": hex(27 + parity)}
