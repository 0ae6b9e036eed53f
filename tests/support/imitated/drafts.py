"""Transactions before they stand in a block: their JSON, their outcome, and their call frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tests.support.imitated.accounts import account, created_by
from tests.support.imitated.encoding import keccak
from tests.support.imitated.hexadecimal import ZERO_HASH, Json, shown
from tests.support.imitated.transactions import Family, transaction_hash

TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
GWEI = 10**9


@dataclass
class Draft:
    """One transaction and what comes of it. ``frame`` is None where the node shows no call frames of it."""

    transaction: Json
    frame: Json | None
    gas: int = 21_000
    succeeded: bool = True
    logs: list[Json] = field(default_factory=list)
    receipt: Json = field(default_factory=dict)
    """Members of its receipt that others lack."""
    is_in_tries: bool = True
    """False for a transaction that stands in the JSON, and in neither root nor bloom."""


def word(rng: Random) -> str:
    """Return 32 bytes."""
    return shown(rng.randbytes(32))


def address(rng: Random) -> str:
    """Return 20 bytes."""
    return shown(rng.randbytes(20))


def padded(text: str) -> str:
    """Return an address as a topic."""
    return "0x" + text.removeprefix("0x").rjust(64, "0")


def token_log(rng: Random, token: str, sender: str, to: str) -> Json:
    """Return a Transfer of tokens."""
    amount = rng.randrange(2 ** rng.choice((64, 128, 200)))
    return {"address": token, "topics": [TRANSFER, padded(sender), padded(to)], "data": f"0x{amount:064x}"}


def other_log(rng: Random) -> Json:
    """Return a log with 0 to 4 topics and data of any length."""
    topics = [word(rng) for _ in range(rng.randrange(5))]
    return {"address": address(rng), "topics": topics, "data": shown(rng.randbytes(rng.choice((0, 1, 31, 32, 200))))}


def call_frame(transaction: Json, gas_used: int, **more: object) -> Json:
    """Return the root frame of a transaction as callTracer shows it."""
    to = transaction.get("to")
    frame = {
        "type": "CALL" if to else "CREATE",
        "from": transaction["from"],
        "to": to or created_by(transaction["from"], transaction["nonce"]),
        "gas": transaction["gas"],
        "gasUsed": hex(gas_used),
        "input": transaction["input"],
        "value": transaction["value"],
    }
    return frame | more


def inner_frame(rng: Random, sender: str, **more: object) -> Json:
    """Return a call below the root."""
    kind = rng.choice(("CALL", "STATICCALL", "DELEGATECALL"))
    value = {"value": hex(rng.randrange(10**18))} if kind == "CALL" else {}
    frame: Json = {"type": kind, "from": sender, "to": address(rng), "gas": hex(90_000), "gasUsed": hex(2_600)}
    return {**frame, "input": shown(rng.randbytes(36)), "output": word(rng), **value, **more}


class OrdinaryTransactions:
    """Signed transactions that any chain may have: transfers, calls with logs, failures, creations."""

    def __init__(self, chain_id: int, family: Family, types: tuple[int, ...], *, base_fee: int | None) -> None:
        self._chain_id = chain_id
        self._family = family
        self._types = types
        self._base_fee = base_fee

    def drafts(self, rng: Random, block: int, count: int, *, protected: bool = True) -> list[Draft]:
        """Return ``count`` transactions of a block. The first kinds come first, so that small blocks have logs."""
        makers = (self._token_call, self._plain, self._failing, self._creation)
        return [makers[index % 4](rng, self._start(rng, block, index, protected=protected)) for index in range(count)]

    def signed(self, rng: Random, transaction: Json) -> Json:
        """Return a transaction signed by one of the accounts."""
        return account(rng.randrange(16)).signed(transaction, self._family)

    def _start(self, rng: Random, block: int, index: int, *, protected: bool) -> Json:
        """Return the fields that do not depend on what the transaction does."""
        kind = self._types[(block + index) % len(self._types)]
        nonce, gas = hex(rng.randrange(5000)), hex(rng.randrange(10**5, 10**6))
        start: Json = {"type": hex(kind), "nonce": nonce, "gas": gas}
        if kind or protected:
            start["chainId"] = hex(self._chain_id)
        return start | self._price(rng, kind) | _lists(rng, kind)

    def _price(self, rng: Random, kind: int) -> Json:
        base = self._base_fee or 0
        if kind in {0, 1, 0x55}:
            return {"gasPrice": hex(base + rng.randrange(1, 50 * GWEI))}
        tip = rng.randrange(GWEI)
        cap = max(base + rng.randrange(2 * GWEI), tip)
        price = hex(min(cap, base + tip))
        return {"maxFeePerGas": hex(cap), "maxPriorityFeePerGas": hex(tip), "gasPrice": price}

    def _plain(self, rng: Random, start: Json) -> Draft:
        to, value = account(rng.randrange(16)).address, hex(rng.randrange(10**20))
        whole = self.signed(rng, {**start, "to": to, "value": value, "input": "0x"})
        return Draft(whole, call_frame(whole, 21_000))

    def _token_call(self, rng: Random, start: Json) -> Draft:
        token, to = address(rng), account(rng.randrange(16)).address
        data = "0xa9059cbb" + padded(to)[2:] + f"{rng.randrange(2**90):064x}"
        whole = self.signed(rng, {**start, "to": token, "value": "0x0", "input": data})
        logs = [token_log(rng, token, whole["from"], to), *[other_log(rng) for _ in range(rng.randrange(3))]]
        calls = [inner_frame(rng, token, calls=[inner_frame(rng, token)]), inner_frame(rng, token)]
        gas = rng.randrange(30_000, 90_000)
        return Draft(whole, call_frame(whole, gas, output=f"0x{1:064x}", calls=calls), gas, logs=logs)

    def _failing(self, rng: Random, start: Json) -> Draft:
        whole = self.signed(rng, {**start, "to": address(rng), "value": "0x0", "input": shown(rng.randbytes(4))})
        gas = rng.randrange(22_000, 60_000)
        return Draft(whole, call_frame(whole, gas, error="execution reverted"), gas, succeeded=False)

    def _creation(self, rng: Random, start: Json) -> Draft:
        if start["type"] == "0x4":  # EIP-7702: no creation
            return self._plain(rng, start)
        whole = self.signed(rng, {**start, "to": None, "value": "0x0", "input": shown(rng.randbytes(60))})
        gas = rng.randrange(60_000, 99_000)
        contract = created_by(whole["from"], whole["nonce"])
        frame = call_frame(whole, gas, output=shown(rng.randbytes(30)))
        return Draft(whole, frame, gas, logs=[other_log(rng)], receipt={"contractAddress": contract})


def _lists(rng: Random, kind: int) -> Json:
    if kind == 0x55:
        return {"novelty": word(rng)}
    lists: Json = {} if kind == 0 else {"accessList": _access_list(rng)}
    if kind == 4:
        lists["authorizationList"] = [_authorization(rng)]
    return lists


def _access_list(rng: Random) -> list[Json]:
    return [{"address": address(rng), "storageKeys": [word(rng), ZERO_HASH]}] if rng.random() < 0.5 else []


def _authorization(rng: Random) -> Json:
    numbers = {name: hex(rng.randrange(2**255)) for name in ("r", "s")}
    return {"chainId": "0x0", "address": address(rng), "nonce": hex(rng.randrange(9)), "yParity": "0x1", **numbers}


def unsigned(transaction: Json, family: Family) -> Json:
    """Return a transaction that nobody signs, with its hash and the zeros that nodes show for its signature."""
    whole = {"nonce": "0x0", "gasPrice": "0x0", **transaction, "v": "0x0", "r": "0x0", "s": "0x0"}
    return {**whole, "hash": shown(transaction_hash(whole, family))}


def source_hash(rng: Random) -> str:
    """Return a hash as of a deposit's origin."""
    return shown(keccak(rng.randbytes(8)))
