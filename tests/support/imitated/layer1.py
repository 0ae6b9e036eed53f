"""Recipes of chains that are no rollups: Ethereum's eras, Polygon PoS, Avalanche C, Gnosis, BSC, Monad's shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.support.imitated.chain import Recipe
from tests.support.imitated.drafts import Draft, address, call_frame, other_log, token_log, unsigned, word
from tests.support.imitated.encoding import keccak, rlp
from tests.support.imitated.headers import HeaderKind
from tests.support.imitated.hexadecimal import ZERO_ADDRESS, ZERO_HASH, Json, octets, quantity, shown
from tests.support.imitated.transactions import Family

EMPTY_ROOT = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
NO_REQUESTS = "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EIP_155 = 2_675_000
BYZANTIUM = 4_370_000
MADHUGIRI = 80_084_800
SPRINT = 16


@dataclass
class BeforeByzantium(Recipe):
    """Ethereum up to 4,370,000: receipts hold a state root and no status, transactions have no chain id at first."""

    types: tuple[int, ...] = (0,)
    base_fee: int | None = None

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        drafts = self.ordinary.drafts(rng, number, self.size, protected=number >= EIP_155 and number % 3 > 0)
        for draft in drafts:
            if number < BYZANTIUM:
                draft.receipt |= {"root": word(rng), "status": None}
        return drafts

    def header_members(self, rng: Random, number: int) -> Json:
        return {"difficulty": hex(10**13), "nonce": shown(rng.randbytes(8)), "extraData": shown(rng.randbytes(20))}


@dataclass
class Amsterdam(Recipe):
    """Ethereum after Amsterdam: two more header fields, and gas used in the header that refunds do not lower."""

    header: HeaderKind = "amsterdam"

    def header_members(self, rng: Random, number: int) -> Json:
        gas = sum(draft.gas for draft in self.drafts(self.rng(number), number))
        return {
            **modern(rng),
            "blockAccessListHash": word(rng),
            "slotNumber": hex(number + 5_000_000),
            "gasUsed": hex(gas + 4_800),
        }


def modern(rng: Random) -> Json:
    """Return the header members since Prague."""
    members: Json = {"withdrawalsRoot": EMPTY_ROOT, "withdrawals": [], "blobGasUsed": "0x0", "excessBlobGas": "0x0"}
    return members | {"parentBeaconBlockRoot": word(rng), "requestsHash": NO_REQUESTS}


@dataclass
class Modern(Recipe):
    """A chain with Ethereum's present forms."""

    def header_members(self, rng: Random, number: int) -> Json:
        return modern(rng)


@dataclass
class Bsc(Modern):
    """BNB Smart Chain: validators' own transactions without a price end each block."""

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        own: Json = {
            "type": "0x0",
            "nonce": hex(number),
            "gas": hex(2**63 - 1),
            "gasPrice": "0x0",
            "input": "0xf340fa01",
        }
        own |= {"chainId": hex(self.chain_id), "value": hex(rng.randrange(10**17)), "to": f"0x{0x1000:040x}"}
        whole = self.ordinary.signed(rng, own)
        last = Draft(whole, call_frame(whole, 15_000), 15_000, logs=[other_log(rng)])
        return [*self.ordinary.drafts(rng, number, self.size), last]

    def header_members(self, rng: Random, number: int) -> Json:
        zero = {"parentBeaconBlockRoot": ZERO_HASH, "mixHash": f"0x{number % 1000:064x}"}
        return modern(rng) | zero | {"difficulty": "0x2", "extraData": shown(rng.randbytes(130))}


@dataclass
class Polygon(Recipe):
    """Polygon PoS: a state-sync transaction ends each sprint, outside the roots at first, with type 0x7f later."""

    family: Family = "polygon"
    types: tuple[int, ...] = (2, 0, 2, 1)
    traces_state_sync: bool = False
    """Whether the node shows frames of 0x7f, as bor does since 2026."""

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        ordinary = self.ordinary.drafts(rng, number, self.size)
        for draft in ordinary:
            draft.logs.append({**other_log(rng), "address": f"0x{0x1010:040x}"})
        return [*ordinary, self._state_sync(rng)] if number >= MADHUGIRI and not number % SPRINT else ordinary

    def outside_tries(self, rng: Random, block: Json) -> list[Draft]:
        number = quantity(block["number"])
        if number >= MADHUGIRI or number % SPRINT:
            return []
        digest = keccak(b"matic-bor-receipt-" + number.to_bytes(8, "big") + octets(block["hash"]))
        whole = {**_NOTHING, "type": "0x0", "hash": shown(digest)}
        return [Draft(whole, None, 0, logs=self._sync_logs(rng), is_in_tries=False)]

    def _state_sync(self, rng: Random) -> Draft:
        entries = [
            [rng.randrange(10**7), rng.randbytes(20), rng.randbytes(rng.choice((32, 90))), rng.randbytes(32)]
            for _ in range(rng.randrange(1, 4))
        ]
        whole = {**unsigned({**_NOTHING, "type": "0x7f", "_stateSync": entries}, self.family)}
        frame = None
        if self.traces_state_sync:
            parties = {"from": "0x" + "ff" * 19 + "fe", "to": f"0x{0x1001:040x}", "value": "0x0"}
            frame = {"type": "CALL", **parties, "gas": "0x0", "gasUsed": "0x0", "input": "0x"}
        return Draft(whole, frame, 0, logs=self._sync_logs(rng))

    def _sync_logs(self, rng: Random) -> list[Json]:
        return [token_log(rng, address(rng), ZERO_ADDRESS, address(rng)), {**other_log(rng), "topics": [word(rng)]}]

    def header_members(self, rng: Random, number: int) -> Json:
        return {
            "difficulty": "0x16",
            "miner": ZERO_ADDRESS,
            "mixHash": ZERO_HASH,
            "extraData": shown(rng.randbytes(97)),
        }


_NOTHING: Json = {
    **dict.fromkeys(("from", "to"), ZERO_ADDRESS),
    **dict.fromkeys(("nonce", "gas", "gasPrice", "value", "v", "r", "s"), "0x0"),
    "input": "0x",
}


@dataclass
class Avalanche(Recipe):
    """Avalanche's C-Chain: header fields of its own, in the order of its upgrades."""

    header: HeaderKind = "avalanche"
    types: tuple[int, ...] = (2, 0, 1)
    base_fee: int | None = 25 * 10**9
    upgrades: int = 3
    """How many groups of optional fields the header has: 0 before Apricot 3, 4 since Granite."""

    def header_members(self, rng: Random, number: int) -> Json:
        groups: list[Json] = [
            {"baseFeePerGas": hex(self.base_fee or 0)},
            {"extDataGasUsed": hex(rng.randrange(10**5)), "blockGasCost": "0x0"},
            {"blobGasUsed": "0x0", "excessBlobGas": "0x0", "parentBeaconBlockRoot": ZERO_HASH},
            {"timestampMilliseconds": hex(1_700_000_000_123 + number), "minDelayExcess": hex(7_970_124)},
        ]
        members: Json = {"extDataHash": word(rng) if number % 4 else EMPTY_ROOT, "difficulty": "0x1"}
        for group in groups[: self.upgrades]:
            members |= group
        return members | {"extraData": shown(rng.randbytes(80)), "blockExtraData": "0x", "totalDifficulty": hex(number)}


@dataclass
class Aura(Recipe):
    """Gnosis before the merge: authorities sign blocks, and each client shows their seal in its own way."""

    header: HeaderKind = "aura"
    types: tuple[int, ...] = (2, 0, 1)

    def header_members(self, rng: Random, number: int) -> Json:
        seal, step = shown(rng.randbytes(65)), 328_000_000 + number
        return {"difficulty": hex(2**128 - 2), "auraStep": hex(step), "auraSeal": seal, "mixHash": ZERO_HASH}


def shown_by(client: str, block: Json) -> Json:
    """Return a block of AuRa as a client shows it: ``erigon``, ``nethermind`` or ``openethereum``."""
    if client == "erigon":
        return block
    kept = {name: value for name, value in block.items() if name not in {"auraStep", "auraSeal", "nonce", "mixHash"}}
    step = quantity(block["auraStep"])
    if client == "nethermind":
        return kept | {"step": step, "signature": block["auraSeal"]}
    seal = [shown(rlp(step)), shown(rlp(octets(block["auraSeal"])))]
    return kept | {"sealFields": seal, "author": block["miner"]}


@dataclass
class FromZero(Recipe):
    """A chain from its genesis block, in which two blocks of three are empty."""

    first: int = 0

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        return [] if number % 3 else self.ordinary.drafts(rng, number, self.size)

    def header_members(self, rng: Random, number: int) -> Json:
        return modern(rng)


@dataclass
class SomeUnknownType(Modern):
    """A chain of its own, in which some blocks hold a type of transaction that nobody else has."""

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        plain = self.ordinary.drafts(rng, number, self.size)
        if number % 4:
            return plain
        return [*plain, *replace(self, types=(0x55,)).ordinary.drafts(rng, number, 1)]


@dataclass
class LongerHeader(Modern):
    """A chain of its own, whose header has a field that nobody else has."""

    header: HeaderKind = "longer"

    def header_members(self, rng: Random, number: int) -> Json:
        return modern(rng) | {"somethingNew": word(rng)}


@dataclass
class WithoutRlp(Recipe):
    """A chain in the manner of zkSync Era: the hash is no header's, and the roots are zero."""

    header: HeaderKind = "none"

    def header_members(self, rng: Random, number: int) -> Json:
        roots = {"transactionsRoot": ZERO_HASH, "receiptsRoot": ZERO_HASH, "stateRoot": ZERO_HASH}
        return {**roots, "sealFields": [], "l1BatchNumber": hex(number // 10), "l1BatchTimestamp": None}
