"""Signed transactions of types 0, 1, 2 and 4, their receipts and call frames."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import rlp

from trace_dagster.devchain.constants import BASE_FEE_WEI, CHAIN_ID
from trace_dagster.devchain.crypto import Account, keccak, logs_bloom


@dataclass(frozen=True, slots=True)
class DevLog:
    """One log."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes

    @property
    def bloom_entries(self) -> tuple[bytes, ...]:
        """The values that the bloom contains for this log."""
        return (self.address, *self.topics)


@dataclass(frozen=True, slots=True)
class DevFrame:
    """A call below the root frame."""

    to: bytes
    value: int = 0
    input: bytes = b""
    gas_used: int = 5_000
    error: str | None = None
    kind: str = "CALL"


@dataclass(frozen=True, slots=True)
class DevCall:
    """The call of a transaction, and its effects: logs, inner calls, output, gas."""

    to: bytes | None
    value: int = 0
    input: bytes = b""
    gas_used: int = 21_000
    success: bool = True
    logs: tuple[DevLog, ...] = ()
    frames: tuple[DevFrame, ...] = ()
    output: bytes = b""
    free: bool = False
    """True for a system transaction, which pays no gas."""


@dataclass(frozen=True, slots=True)
class DevTransaction:
    """A signed transaction with its effects."""

    kind: int
    sender: bytes
    nonce: int
    call: DevCall
    gas_limit: int
    tip: int
    fee_cap: int
    signature: tuple[int, int, int]
    access_list: list[Any] = field(default_factory=list)
    authorizations: list[Any] = field(default_factory=list)
    encoded: bytes = b""
    hash: bytes = b""

    @property
    def gas_price(self) -> int:
        """Price of one unit of gas for the sender, in wei."""
        if self.call.free:
            return 0
        return self.fee_cap if self.kind < 2 else min(self.fee_cap, BASE_FEE_WEI + self.tip)

    @property
    def gas_used(self) -> int:
        """Gas used according to the receipt."""
        return 0 if self.call.free else self.call.gas_used

    @property
    def logs(self) -> tuple[DevLog, ...]:
        """The logs; a failed transaction has none."""
        return self.call.logs if self.call.success else ()


GAS_MARGIN = 20_000
ACCESS_LIST_GAS = 4_300
"""Gas of EIP-2930: 2,400 for an address and 1,900 for a storage key."""
AUTHORIZATION_GAS = 25_000
"""Gas of EIP-7702 for each authorization."""


def sign(kind: int, account: Account, call: DevCall, *, tip: int, salt: bytes) -> DevTransaction:
    """Build, sign and encode a transaction; it uses the account's next nonce, and one more for its own
    authorization.
    """
    extra_gas = {1: ACCESS_LIST_GAS, 4: ACCESS_LIST_GAS + AUTHORIZATION_GAS}.get(kind, 0)
    call = replace(call, gas_used=call.gas_used + extra_gas)
    nonce, account.nonce = account.nonce, account.nonce + 1
    fee_cap = 0 if call.free else BASE_FEE_WEI * 2 + tip
    gas_limit = 0 if call.free else call.gas_used + GAS_MARGIN
    access = [[call.to or b"", [salt]]] if kind in {1, 4} else []
    authorizations = [_authorization(account, call)] if kind == 4 else []
    account.nonce += len(authorizations)
    fields = _fields(kind, nonce, call, gas_limit, tip, fee_cap, access, authorizations)
    parity, r, s = account.sign(keccak(_envelope(kind, [*fields, CHAIN_ID, 0, 0] if kind == 0 else fields)))
    v = parity + CHAIN_ID * 2 + 35 if kind == 0 else parity
    encoded = _envelope(kind, [*fields, v, r, s])
    return DevTransaction(
        kind=kind,
        sender=account.address,
        nonce=nonce,
        call=call,
        gas_limit=gas_limit,
        tip=tip,
        fee_cap=fee_cap,
        signature=(v, r, s),
        access_list=access,
        authorizations=authorizations,
        encoded=encoded,
        hash=keccak(encoded),
    )


def encode_receipt(transaction: DevTransaction, cumulative_gas: int) -> tuple[bytes, bytes]:
    """Return (consensus encoding, bloom) of a receipt."""
    bloom = logs_bloom(entry for log in transaction.logs for entry in log.bloom_entries)
    logs = [[log.address, list(log.topics), log.data] for log in transaction.logs]
    fields = [1 if transaction.call.success else 0, cumulative_gas, bloom, logs]
    return _envelope(transaction.kind, fields), bloom


def _envelope(kind: int, fields: list[Any]) -> bytes:
    payload: bytes = rlp.encode(fields)
    return payload if kind == 0 else bytes([kind]) + payload


def _fields(
    kind: int,
    nonce: int,
    call: DevCall,
    gas_limit: int,
    tip: int,
    fee_cap: int,
    access: list[Any],
    authorizations: list[Any],
) -> list[Any]:
    to = call.to or b""
    if kind == 0:
        return [nonce, fee_cap, gas_limit, to, call.value, call.input]
    if kind == 1:
        return [CHAIN_ID, nonce, fee_cap, gas_limit, to, call.value, call.input, access]
    common = [CHAIN_ID, nonce, tip, fee_cap, gas_limit, to, call.value, call.input, access]
    return common if kind == 2 else [*common, authorizations]


def _authorization(account: Account, call: DevCall) -> list[Any]:
    """Return an EIP-7702 authorization: [chain_id, address, nonce, y_parity, r, s], signed over 0x05 ||
    rlp(first three).
    """
    fields: list[Any] = [CHAIN_ID, call.to or b"", account.nonce]
    return [*fields, *account.sign(keccak(b"\x05" + rlp.encode(fields)))]
