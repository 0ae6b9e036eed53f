"""A chain of imitated blocks: drafts become blocks with hashes, roots, receipts, logs and call frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from tests.support.imitated.drafts import Draft, OrdinaryTransactions
from tests.support.imitated.encoding import keccak, list_root, rlp
from tests.support.imitated.headers import HeaderKind, header_items, with_hash
from tests.support.imitated.hexadecimal import ZERO_ADDRESS, ZERO_HASH, Json, shown
from tests.support.imitated.receipts import logs_bloom, receipt_leaf
from tests.support.imitated.transactions import Family, envelope

START_TIME = 1_700_000_000


@dataclass
class ImitatedBlock:
    """One block with all that its node shows of it. Lists have one entry per transaction, in order."""

    number: int
    block: Json
    receipts: list[Json]
    frames: list[Json | None]
    """Root call frames; None where the node shows none."""
    raw: list[bytes]

    def logs(self) -> list[Json]:
        """Return the block's logs, in order."""
        return [log for receipt in self.receipts for log in receipt["logs"]]


@dataclass
class Recipe:
    """What one chain's blocks are made of. Subclasses say what is special to a chain."""

    name: str
    """The chain's name, and the era if it has several."""
    chain_id: int
    first: int = 1_000
    """The first block; rounded down to a multiple of half the blocks, because ranges of a stream begin there."""
    count: int = 24
    seed: int = 7
    family: Family = "ethereum"
    header: HeaderKind = "ethereum"
    types: tuple[int, ...] = (2, 0, 1, 2, 4)
    base_fee: int | None = 10**9
    size: int = 4
    """Number of ordinary transactions in a block."""
    extra: dict[str, object] = field(default_factory=dict)
    """More header members."""

    def __post_init__(self) -> None:
        self.first -= self.first % max(self.count // 2, 1)

    @property
    def end(self) -> int:
        """The block after the last one."""
        return self.first + self.count

    def rng(self, number: int) -> Random:
        """Return the random numbers of one block."""
        return Random(f"{self.seed} {self.name} {number}")

    @cached_property
    def ordinary(self) -> OrdinaryTransactions:
        """Signed transactions of this chain."""
        return OrdinaryTransactions(self.chain_id, self.family, self.types, base_fee=self.base_fee)

    def drafts(self, rng: Random, number: int) -> list[Draft]:
        """Return the transactions of a block."""
        return self.ordinary.drafts(rng, number, self.size)

    def header_members(self, rng: Random, number: int) -> Json:
        """Return header members that differ from those of an ordinary block, or that others do not have."""
        del rng, number
        return {}

    def outside_tries(self, rng: Random, block: Json) -> list[Draft]:
        """Return drafts whose hash needs the block's hash; they stand in no root."""
        del rng, block
        return []

    def receipt_members(self, draft: Draft) -> Json:
        """Return receipt members that this chain's nodes add."""
        del draft
        return {}


def build(recipe: Recipe) -> list[ImitatedBlock]:
    """Return all blocks of a recipe."""
    blocks: list[ImitatedBlock] = []
    parent = shown(keccak(f"{recipe.name} {recipe.seed}".encode())) if recipe.first else ZERO_HASH
    for number in range(recipe.first, recipe.end):
        blocks.append(_block(recipe, number, parent))
        parent = blocks[-1].block["hash"]
    return blocks


def _block(recipe: Recipe, number: int, parent: str) -> ImitatedBlock:
    rng = recipe.rng(number)
    drafts = recipe.drafts(rng, number) if number else []
    raw = [envelope(draft.transaction, recipe.family) for draft in drafts]
    receipts = [_receipt(recipe, draft) for draft in drafts]
    for receipt, spent in zip(receipts, _cumulated(drafts), strict=True):
        receipt["cumulativeGasUsed"] = hex(spent)
    leaves = [receipt_leaf(receipt, recipe.family) for receipt in receipts]
    header = _header(recipe, rng, number, parent)
    header |= {
        "transactionsRoot": shown(list_root(raw)),
        "receiptsRoot": shown(list_root(leaves)),
        "logsBloom": shown(logs_bloom(log for draft in drafts for log in draft.logs)),
        "gasUsed": hex(sum(draft.gas for draft in drafts)),
    }
    header |= recipe.header_members(rng, number) | recipe.extra
    header["size"] = hex(_size(recipe, header, raw))
    block = with_hash({**header, "uncles": [], "transactions": [draft.transaction for draft in drafts]}, recipe.header)
    later = recipe.outside_tries(rng, block)
    receipts += [_receipt(recipe, draft) | {"cumulativeGasUsed": "0x0"} for draft in later]
    drafts += later
    return _placed(number, block, drafts, receipts, raw)


def _header(recipe: Recipe, rng: Random, number: int, parent: str) -> Json:
    """Return the members that every header has."""
    base = {} if recipe.base_fee is None else {"baseFeePerGas": hex(recipe.base_fee)}
    return base | {
        "parentHash": parent,
        "sha3Uncles": shown(keccak(rlp([]))),
        "miner": shown(rng.randbytes(20)),
        "stateRoot": shown(rng.randbytes(32)),
        "difficulty": "0x0",
        "number": hex(number),
        "gasLimit": hex(30_000_000),
        "timestamp": hex(START_TIME + 2 * (number - recipe.first)),
        "extraData": "0x",
        "mixHash": shown(rng.randbytes(32)),
        "nonce": "0x" + "00" * 8,
    }


def _size(recipe: Recipe, header: Json, raw: list[bytes]) -> int:
    """Return the bytes of the block: its header and its transactions."""
    items = header_items(header, recipe.header) if recipe.header != "none" else []
    return len(rlp([items, raw, []]))


def _cumulated(drafts: list[Draft]) -> list[int]:
    return [sum(draft.gas for draft in drafts[: index + 1]) for index in range(len(drafts))]


def _receipt(recipe: Recipe, draft: Draft) -> Json:
    """Return a receipt without what depends on its place."""
    transaction = draft.transaction
    receipt = {
        "transactionHash": transaction["hash"],
        "from": transaction.get("from", ZERO_ADDRESS),
        "to": transaction["to"],
        "gasUsed": hex(draft.gas),
        "effectiveGasPrice": transaction["gasPrice"],
        "contractAddress": None,
        "status": hex(int(draft.succeeded)),
        "type": transaction["type"],
        "logs": draft.logs,
        "logsBloom": shown(logs_bloom(draft.logs)),
    }
    return receipt | recipe.receipt_members(draft) | draft.receipt


def _placed(number: int, block: Json, drafts: list[Draft], receipts: list[Json], raw: list[bytes]) -> ImitatedBlock:
    """Return the block, in which every row says where it stands."""
    transactions: list[Json] = []
    log_index = 0
    for index, (draft, receipt) in enumerate(zip(drafts, receipts, strict=True)):
        place = {"blockHash": block["hash"], "blockNumber": hex(number), "transactionIndex": hex(index)}
        transactions.append(_public(draft.transaction) | place)
        about = place | {"transactionHash": receipt["transactionHash"], "removed": False}
        receipt["logs"] = [
            {**log, **about, "logIndex": hex(log_index + position)} for position, log in enumerate(receipt["logs"])
        ]
        receipt.update(place)
        log_index += len(receipt["logs"])
    frames = [draft.frame for draft in drafts]
    return ImitatedBlock(number, {**block, "transactions": transactions}, receipts, frames, raw)


def _public(transaction: Json) -> Json:
    """Leave out what no node shows."""
    return {name: value for name, value in transaction.items() if not name.startswith("_")}
