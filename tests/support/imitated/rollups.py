"""Recipes of rollups: OP Stack in its eras, Arbitrum Nitro, Celo, Scroll."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.support.imitated.accounts import account
from tests.support.imitated.chain import Recipe
from tests.support.imitated.drafts import (
    Draft,
    address,
    call_frame,
    inner_frame,
    other_log,
    source_hash,
    unsigned,
    word,
)
from tests.support.imitated.headers import HeaderKind
from tests.support.imitated.hexadecimal import ZERO_HASH, Json, octets, quantity, shown
from tests.support.imitated.transactions import Family

_ATTRIBUTES = "0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001"
_L1_BLOCK = "0x4200000000000000000000000000000000000015"
_NO_REQUESTS = "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass
class OpStack(Recipe):
    """An OP Stack chain after Isthmus and Jovian: a deposit begins every block, some blocks have one of a user."""

    family: Family = "op"
    has_canyon: bool = True
    has_regolith: bool = True
    has_isthmus: bool = True

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        deposits = [self._attributes(rng, number)]
        if number % 3 == 0:
            deposits.append(self._of_user(rng, number))
        return [*deposits, *self.ordinary.drafts(rng, number, self.size)]

    def _attributes(self, rng: Random, number: int) -> Draft:
        data = "0x440a5e20" + rng.randbytes(160).hex()
        fields = {"from": _ATTRIBUTES, "to": _L1_BLOCK, "value": "0x0", "gas": hex(1_000_000), "input": data}
        if not self.has_regolith:
            fields |= {"isSystemTx": True, "gas": hex(150_000_000)}
        inner = [inner_frame(rng, _L1_BLOCK, type="DELEGATECALL")]
        return self._deposit(rng, number, fields, 46_000 if self.has_regolith else 0, calls=inner)

    def _of_user(self, rng: Random, number: int) -> Draft:
        """Return a deposit with ether; every second one creates a contract or fails."""
        value = hex(rng.randrange(10**18))
        to = None if number % 6 == 0 else address(rng)
        fields = {"from": address(rng), "to": to, "mint": value, "value": value, "gas": hex(100_000)}
        draft = self._deposit(rng, number, {**fields, "input": shown(rng.randbytes(40))}, 70_000)
        if number % 4 == 1:
            draft.succeeded = False
            draft.frame = call_frame(draft.transaction, draft.gas, error="execution reverted")
        else:
            draft.logs = [other_log(rng)]
        return draft

    def _deposit(self, rng: Random, number: int, fields: Json, gas: int, **more: object) -> Draft:
        nonce = hex(number + rng.randrange(1000))
        whole = {"type": "0x7e", "sourceHash": source_hash(rng), "nonce": nonce, **fields}
        if not self.has_regolith:
            whole["nonce"] = "0x0"
        if self.has_canyon:
            whole["depositReceiptVersion"] = "0x1"
        transaction = unsigned(whole, self.family)
        return Draft(transaction, call_frame(transaction, gas, **more), gas, receipt=self._nonce(transaction))

    def _nonce(self, transaction: Json) -> Json:
        """Return what a deposit's receipt adds: the nonce since Regolith, its version since Canyon."""
        nonce = {"depositNonce": transaction["nonce"]} if self.has_regolith else {}
        return nonce | ({"depositReceiptVersion": "0x1"} if self.has_canyon else {})

    def receipt_members(self, draft: Draft) -> Json:
        if draft.transaction["type"] == "0x7e":
            return {}
        return {"l1Fee": "0x1234", "l1GasPrice": "0x5", "l1GasUsed": "0x640", "l1BlobBaseFee": "0x1"}

    def header_members(self, rng: Random, number: int) -> Json:
        members: Json = {"miner": "0x4200000000000000000000000000000000000011"}
        if self.has_canyon:
            members |= {"withdrawalsRoot": word(rng) if self.has_isthmus else _EMPTY_ROOT, "withdrawals": []}
        if self.has_isthmus:
            members |= {"blobGasUsed": hex(rng.randrange(10**6)), "excessBlobGas": "0x0"}
            members |= {"parentBeaconBlockRoot": word(rng), "requestsHash": _NO_REQUESTS}
            members["extraData"] = "0x01000000fa000000060000000000000000"
        return members


_EMPTY_ROOT = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


@dataclass
class Celo(OpStack):
    """Celo since it is an OP Stack chain: fees in tokens (0x7b), whose receipts end with the base fee."""

    family: Family = "celo"
    header: HeaderKind = "ethereum"

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        return [*super().drafts(rng, number), self._with_fee_currency(rng)]

    def _with_fee_currency(self, rng: Random) -> Draft:
        fields: Json = {"type": "0x7b", "chainId": hex(self.chain_id), "nonce": "0x5", "gas": hex(120_000)}
        fields |= {"maxPriorityFeePerGas": "0x1", "maxFeePerGas": hex(10**10), "gasPrice": hex(10**9 + 1)}
        fields |= {"to": address(rng), "value": "0x0", "input": "0x1234", "accessList": [], "feeCurrency": address(rng)}
        whole = self.ordinary.signed(rng, fields)
        frame = call_frame(whole, 60_000)
        return Draft(whole, frame, 60_000, logs=[other_log(rng)], receipt={"baseFee": hex(10**9)})


@dataclass
class Scroll(Recipe):
    """Scroll since EuclidV2: messages from L1 (0x7e), and extra data that is outside the hash."""

    family: Family = "scroll"
    header: HeaderKind = "scroll"
    types: tuple[int, ...] = (2, 0, 1)

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        ordinary = self.ordinary.drafts(rng, number, self.size)
        return ([self._message(rng, number)] if number % 2 else []) + ordinary

    def _message(self, rng: Random, number: int) -> Draft:
        sender = address(rng)
        fields = {"type": "0x7e", "queueIndex": hex(number), "sender": sender, "from": sender, "to": address(rng)}
        fields |= {"gas": hex(168_000), "value": "0x0", "input": "0x8ef1332e" + rng.randbytes(64).hex()}
        whole = unsigned(fields, self.family)
        return Draft(whole, call_frame(whole, 90_000), 90_000, logs=[other_log(rng)])

    def receipt_members(self, draft: Draft) -> Json:
        return {"l1Fee": "0x0" if draft.transaction["type"] == "0x7e" else "0x2d79"}

    def header_members(self, rng: Random, number: int) -> Json:
        return {"difficulty": "0x1", "extraData": shown(rng.randbytes(97)), "mixHash": ZERO_HASH}


_ARBOS = "0x00000000000000000000000000000000000a4b05"
_RETRYABLES = "0x000000000000000000000000000000000000006e"


@dataclass
class Arbitrum(Recipe):
    """Arbitrum Nitro: ArbOS begins every block (0x6a), and messages from L1 come in their own types."""

    family: Family = "arbitrum"
    types: tuple[int, ...] = (2, 0, 2, 1)
    base_fee: int | None = 10**8

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        makers = (self._deposit, self._unsigned_call, self._contract_call, self._submission, self._retry)
        messages = [makers[number % 5](rng)] if number % 2 else []
        return [self._start_block(rng, number), *messages, *self.ordinary.drafts(rng, number, self.size)]

    def _start_block(self, rng: Random, number: int) -> Draft:
        words = (rng.randrange(10**9), number // 10, number, 1)
        data = "0x6bf6a42d" + "".join(f"{each:064x}" for each in words)
        return self._draft({"type": "0x6a", "from": _ARBOS, "to": _ARBOS, "input": data}, 0)

    def _deposit(self, rng: Random) -> Draft:
        value = hex(rng.randrange(10**18))
        return self._draft(
            {"type": "0x64", "requestId": word(rng), "from": address(rng), "to": address(rng), "value": value}, 0
        )

    def _unsigned_call(self, rng: Random) -> Draft:
        return self._draft({"type": "0x65", "nonce": hex(rng.randrange(90)), **self._call(rng)}, 50_000, rng)

    def _contract_call(self, rng: Random) -> Draft:
        return self._draft({"type": "0x66", "requestId": word(rng), **self._call(rng)}, 50_000, rng)

    def _retry(self, rng: Random) -> Draft:
        refund = {"ticketId": word(rng), "refundTo": address(rng), "maxRefund": hex(rng.randrange(10**15))}
        fields = {"type": "0x68", "nonce": "0x1", **refund, "submissionFeeRefund": hex(rng.randrange(10**12))}
        return self._draft(fields | self._call(rng), 80_000, rng)

    def _submission(self, rng: Random) -> Draft:
        """Return a retryable's submission, whose input is derived from its fields."""
        fields: Json = {"requestId": word(rng), "l1BaseFee": hex(rng.randrange(10**11)), "retryTo": address(rng)}
        fields |= {"depositValue": hex(rng.randrange(10**18)), "retryValue": hex(rng.randrange(10**17))}
        fields |= {"maxFeePerGas": hex(2 * 10**8), "gasPrice": hex(2 * 10**8), "gas": hex(300_000)}
        fields |= {"maxSubmissionFee": hex(rng.randrange(10**14)), "refundTo": address(rng)}
        fields |= {"beneficiary": address(rng), "retryData": shown(rng.randbytes(68))}
        whole = {"type": "0x69", "from": address(rng), "to": _RETRYABLES, "input": _submission_input(fields), **fields}
        draft = self._draft(whole, 300_000, rng)
        draft.frame = {**(draft.frame or {}), "calls": [self._redeem(rng)]}
        return draft

    def _redeem(self, rng: Random) -> Json:
        data = "0xeda1122c" + word(rng)[2:]
        return {
            "type": "CALL",
            "from": account(1).address,
            "to": _RETRYABLES,
            "gas": "0x493e0",
            "gasUsed": "0x0",
            "input": data,
            "value": "0x0",
        }

    def _call(self, rng: Random) -> Json:
        fields: Json = {"from": address(rng), "to": address(rng), "value": hex(rng.randrange(10**18))}
        return {**fields, "gas": hex(200_000), "input": shown(rng.randbytes(36)), "maxFeePerGas": hex(2 * 10**8)}

    def _draft(self, fields: Json, gas: int, rng: Random | None = None) -> Draft:
        whole = {"chainId": hex(self.chain_id), "gas": "0x0", "value": "0x0", "input": "0x", **fields}
        whole["gasPrice"] = whole.get("maxFeePerGas", "0x0")
        transaction = unsigned(whole, self.family)
        frame = call_frame(transaction, gas, beforeEVMTransfers=[], afterEVMTransfers=[])
        return Draft(transaction, frame, gas, logs=[other_log(rng)] if rng else [])

    def receipt_members(self, draft: Draft) -> Json:
        return {"gasUsedForL1": "0x0", "l1BlockNumber": hex(18_000_000), "effectiveGasPrice": hex(self.base_fee or 0)}

    def header_members(self, rng: Random, number: int) -> Json:
        sent, l1_block, root = 97_000 + number % 1000, 18_000_000, word(rng)
        mix = b"".join(each.to_bytes(8, "big") for each in (sent, l1_block, 10, 0))
        members: Json = {"difficulty": "0x1", "gasLimit": "0x4000000000000", "nonce": f"0x{number % 10**6:016x}"}
        members |= {"miner": "0xa4b000000000000000000073657175656e636572", "extraData": root, "mixHash": shown(mix)}
        return members | {"sendRoot": root, "sendCount": hex(sent), "l1BlockNumber": hex(l1_block)}


def _submission_input(fields: Json) -> str:
    """Return the call that a submission stands for: a selector and its arguments, as a contract's ABI has them."""
    data = octets(fields["retryData"])
    numbers = ("l1BaseFee", "depositValue", "retryValue", "maxFeePerGas", "gas", "maxSubmissionFee")
    words = [octets(fields["requestId"]), *[quantity(fields[name]).to_bytes(32, "big") for name in numbers]]
    words += [octets(fields[name]).rjust(32, b"\0") for name in ("refundTo", "beneficiary", "retryTo")]
    words += [(32 * 11).to_bytes(32, "big"), len(data).to_bytes(32, "big"), data.ljust(-(-len(data) // 32) * 32, b"\0")]
    return "0xc9f95d32" + b"".join(words).hex()
