"""Real blocks of many chains, from the folder that TRACE_REAL_CHAINS names, and how each of them is encoded."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.imitated.encoding import keccak, list_root
from tests.support.imitated.headers import HeaderKind, header_hash
from tests.support.imitated.hexadecimal import Json, octets, quantity
from tests.support.imitated.receipts import receipt_leaf
from tests.support.imitated.transactions import Family, envelope

_FAMILIES: dict[int, Family] = {
    **dict.fromkeys((42161, 421614), "arbitrum"),
    **dict.fromkeys((10, 420, 8453, 84531, 34443, 7777777, 11155420), "op"),
    137: "polygon",
    **dict.fromkeys((534352, 222222), "scroll"),
}
_KINDS: dict[int, HeaderKind] = {43114: "avalanche", 100: "aura", 534352: "scroll"}
_SCROLL_SEALED_OUTSIDE = 10_000_000
"""Scroll's blocks of the folder are far below or far above this one. Above it, extra data is outside the hash."""


@dataclass(frozen=True)
class RealBlock:
    """A block as its node showed it. ``checked`` names what an independent program recomputed."""

    name: str
    chain_id: int
    block: Json
    receipts: list[Json]
    checked: dict[str, bool]

    @property
    def family(self) -> Family:
        """The forms of the chain's transactions."""
        return _FAMILIES.get(self.chain_id, "ethereum")

    @property
    def header_kind(self) -> HeaderKind:
        """The form of the block's header."""
        kind = _KINDS.get(self.chain_id, "ethereum")
        if self.chain_id == 534352 and quantity(self.block["number"]) < _SCROLL_SEALED_OUTSIDE:
            return "ethereum"
        return kind

    def recomputed(self, part: str) -> bytes:
        """Return what this folder's encoder gives for ``hash``, ``transactionsRoot`` or ``receiptsRoot``."""
        if part == "hash":
            return header_hash(self.block, self.header_kind)
        if part == "transactionsRoot":
            return list_root(
                [envelope(each, self.family) for each in self._in_tries(self.block["transactions"], "hash")]
            )
        return list_root([receipt_leaf(each, self.family) for each in self._in_tries(self.receipts, "transactionHash")])

    def _in_tries(self, each: list[Json], name: str) -> list[Json]:
        """Leave out Polygon's state-sync transaction, which was in neither root before Madhugiri."""
        number = quantity(self.block["number"]).to_bytes(8, "big")
        outside = keccak(b"matic-bor-receipt-" + number + octets(self.block["hash"]))
        return [one for one in each if octets(one[name]) != outside]


def real_chains() -> list[RealBlock]:
    """Return the blocks, or an empty list if TRACE_REAL_CHAINS is not set."""
    folder = os.environ.get("TRACE_REAL_CHAINS", "")
    return [_read(path) for path in sorted(Path(folder).glob("*.json.gz"))] if folder else []


def _read(path: Path) -> RealBlock:
    content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    name = path.name.removesuffix(".json.gz")
    return RealBlock(name, content["chain_id"], content["block"], content.get("receipts") or [], content["checked"])
