"""The table of chains, by chain id. An id that is not in it gets what standard forms allow."""

from __future__ import annotations

from trace_dagster.datasets.chain import Chain, ChainContracts, Form, Open, TransactionForm

DEVCHAIN_ID = 20143
"""The seeded chain that the laptop stack serves (`trace_dagster.devchain`)."""

STAKING_PRECOMPILE = "0x0000000000000000000000000000000000001000"
"""Monad's staking precompile; the devchain imitates it."""

_WMON = "0x3bd359C1119dA7Da1D913D1C4D2B7c461115433A"
_MONAD = ChainContracts(_WMON, "WMON", STAKING_PRECOMPILE)

_OP_TYPES: dict[int, TransactionForm] = {0x7E: "op_deposit"}
_ARBITRUM_TYPES: dict[int, TransactionForm] = {
    0x64: "arbitrum_deposit",
    0x65: "arbitrum_unsigned",
    0x66: "arbitrum_contract",
    0x68: "arbitrum_retry",
    0x69: "arbitrum_submit_retryable",
    0x6A: "arbitrum_internal",
    0x78: "arbitrum_classic",
}
_POLYGON_TYPES: dict[int, TransactionForm] = {0x7F: "polygon_state_sync"}
_CELO_TYPES: dict[int, TransactionForm] = {
    **_OP_TYPES,
    0x7A: "celo_fee_in_celo",
    0x7B: "celo_fee_currency",
    0x7C: "celo_fee_currency_gateway",
}
_SCROLL_TYPES: dict[int, TransactionForm] = {0x7E: "scroll_l1_message"}

_MADE_UP_STATUS = Open(
    Form("receipts"),
    "the node leaves out the state roots of receipts before Byzantium: logs are compared with the header's bloom only",
    end=4_370_000,
    after_all=True,
)

_CHAINS = (
    Chain(
        1,
        "Ethereum",
        finality_blocks=64,
        forks={"byzantium": 4_370_000},
        contracts=ChainContracts("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "WETH", None),
        open=(_MADE_UP_STATUS,),
    ),
    Chain(10, "OP Mainnet", types=_OP_TYPES, forks={"bedrock": 105_235_063}),
    Chain(56, "BNB Smart Chain"),
    Chain(100, "Gnosis", header="aura"),
    Chain(137, "Polygon PoS", types=_POLYGON_TYPES, forks={"madhugiri": 80_084_800}),
    Chain(143, "Monad", contracts=_MONAD),
    Chain(10143, "Monad testnet", contracts=_MONAD),
    Chain(
        DEVCHAIN_ID,
        "trace devchain",
        contracts=ChainContracts("0x754704bc059f8c67012fed69bc8a327a5aafb603", "devchain token", STAKING_PRECOMPILE),
    ),
    Chain(8453, "Base", types=_OP_TYPES),
    Chain(42161, "Arbitrum One", types=_ARBITRUM_TYPES, forks={"nitro": 22_207_817}),
    Chain(42220, "Celo", header="celo", types=_CELO_TYPES),
    Chain(43114, "Avalanche C-Chain", header="avalanche"),
    Chain(534352, "Scroll", header="scroll", types=_SCROLL_TYPES),
)

_BY_ID = {chain.chain_id: chain for chain in _CHAINS}


def chain_of(chain_id: int) -> Chain:
    """Return the chain's row; for an id that is not in the table one with standard forms, ``is_listed`` False."""
    return _BY_ID.get(chain_id) or Chain(chain_id, f"chain {chain_id}", is_listed=False)


def listed_chains() -> tuple[Chain, ...]:
    """Return the rows of the table, by chain id."""
    return tuple(sorted(_CHAINS, key=lambda chain: chain.chain_id))


def contracts_of(chain_id: int) -> ChainContracts | None:
    """Return the chain's well-known contracts, or None if the chain is not in the table."""
    return chain_of(chain_id).contracts
