"""The imitated chains of the tests, and the nodes that show each of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.support.imitated.chain import Recipe
from tests.support.imitated.layer1 import (
    BYZANTIUM,
    EIP_155,
    MADHUGIRI,
    Amsterdam,
    Aura,
    Avalanche,
    BeforeByzantium,
    Bsc,
    FromZero,
    LongerHeader,
    Modern,
    Polygon,
    SomeUnknownType,
    WithoutRlp,
)
from tests.support.imitated.node import Manner
from tests.support.imitated.rollups import Arbitrum, Celo, OpStack, Scroll


@dataclass(frozen=True)
class Imitated:
    """A chain and the manner of its node."""

    recipe: Recipe
    manner: Manner = field(default_factory=Manner)
    note: str = ""
    """What is special to this node, if several show the chain."""

    @property
    def name(self) -> str:
        """The name in the table of levels."""
        return self.recipe.name + (f", {self.note}" if self.note else "")


BASE = Imitated(OpStack("Base", 8453, first=30_000_000))
ARBITRUM = Imitated(Arbitrum("Arbitrum One", 42161, first=250_000_000))
POLYGON = Imitated(Polygon("Polygon PoS, around Madhugiri", 137, first=MADHUGIRI - 20, count=40))
AVALANCHE = Imitated(Avalanche("Avalanche C-Chain", 43114, first=60_000_000))
GNOSIS = Aura("Gnosis before the merge", 100, first=20_000_000)
UNLISTED = 987_654

IMITATED: dict[str, Imitated] = {
    "base": BASE,
    "base_reth": Imitated(
        replace(BASE.recipe, first=31_000_000),
        Manner(leaves_out=("v", "r", "s", "gasPrice")),
        "deposits without v and gasPrice",
    ),
    "op_regolith": Imitated(
        OpStack("OP Mainnet, Regolith", 10, first=109_000_000, has_canyon=False, has_isthmus=False)
    ),
    "op_bedrock": Imitated(
        OpStack("OP Mainnet, Bedrock", 10, first=105_235_100, has_regolith=False, has_canyon=False, has_isthmus=False)
    ),
    "unichain": Imitated(OpStack("Unichain", 130, first=8_000_000)),
    "arbitrum": ARBITRUM,
    "polygon": POLYGON,
    "polygon_traced": Imitated(
        Polygon("Polygon PoS, frames of 0x7f", 137, first=MADHUGIRI + 5_000, traces_state_sync=True)
    ),
    "polygon_without_raw": Imitated(
        Polygon("Polygon PoS, no raw transactions", 137, first=MADHUGIRI + 9_000), Manner(has_raw_transactions=False)
    ),
    "avalanche": AVALANCHE,
    "avalanche_granite": Imitated(Avalanche("Avalanche C-Chain, Granite", 43114, first=72_000_000, upgrades=4)),
    "avalanche_apricot": Imitated(Avalanche("Avalanche C-Chain, Apricot 5", 43114, first=20_000_000, upgrades=2)),
    "celo": Imitated(Celo("Celo", 42220, first=40_000_000)),
    "scroll": Imitated(Scroll("Scroll", 534352, first=16_600_000)),
    "gnosis_nethermind": Imitated(GNOSIS, Manner(client="nethermind"), "Nethermind"),
    "gnosis_erigon": Imitated(GNOSIS, Manner(client="erigon"), "Erigon"),
    "gnosis_openethereum": Imitated(GNOSIS, Manner(client="openethereum"), "OpenEthereum"),
    "ethereum_frontier": Imitated(BeforeByzantium("Ethereum, around EIP-155", 1, first=EIP_155 - 12)),
    "ethereum_byzantium": Imitated(BeforeByzantium("Ethereum, around Byzantium", 1, first=BYZANTIUM - 12)),
    "ethereum_made_up": Imitated(
        BeforeByzantium("Ethereum, a status made up", 1, first=BYZANTIUM - 400), Manner(makes_up_status=True)
    ),
    "ethereum_amsterdam": Imitated(Amsterdam("Ethereum, Amsterdam", 1, first=30_000_000)),
    "bsc": Imitated(Bsc("BNB Smart Chain", 56, first=50_000_000, base_fee=0), Manner(has_finalized=False)),
    "monad": Imitated(FromZero("Monad, from block 0", 143), Manner(null_when_empty=True)),
    "unlisted": Imitated(Modern("Unlisted chain", UNLISTED)),
    "unlisted_type": Imitated(SomeUnknownType("Unlisted chain, unknown type", UNLISTED + 1)),
    "unlisted_header": Imitated(LongerHeader("Unlisted chain, unknown header member", UNLISTED + 2)),
    "without_v": Imitated(Modern("Unlisted chain", UNLISTED + 3), Manner(leaves_out=("v",)), "yParity and no v"),
    "without_type": Imitated(Modern("Unlisted chain", UNLISTED + 4), Manner(leaves_out=("type",)), "no type 0"),
    "log_index": Imitated(
        Modern("Unlisted chain", UNLISTED + 5),
        Manner(counts_logs_by_transaction=True),
        "logIndex counted by transaction",
    ),
    "zksync": Imitated(WithoutRlp("zkSync Era", 324, types=(2, 0))),
}
