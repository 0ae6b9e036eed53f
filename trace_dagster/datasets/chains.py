"""Facts about chains that the chain itself does not state: well-known contracts, by chain id."""

from __future__ import annotations

from dataclasses import dataclass

DEVCHAIN_ID = 20143
"""The seeded chain that the laptop stack serves (`trace_dagster.devchain`)."""

STAKING_PRECOMPILE = "0x0000000000000000000000000000000000001000"
"""Monad's staking precompile; the devchain imitates it."""


@dataclass(frozen=True, slots=True)
class ChainContracts:
    """Contract addresses as 0x text; ``staking`` is None if the chain has no staking contract with events."""

    token: str
    token_name: str
    staking: str | None


_WMON = "0x3bd359C1119dA7Da1D913D1C4D2B7c461115433A"

_KNOWN = {
    143: ChainContracts(_WMON, "WMON", STAKING_PRECOMPILE),
    10143: ChainContracts(_WMON, "WMON", STAKING_PRECOMPILE),
    1: ChainContracts("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "WETH", None),
    DEVCHAIN_ID: ChainContracts("0x754704bc059f8c67012fed69bc8a327a5aafb603", "devchain token", STAKING_PRECOMPILE),
}


def contracts_of(chain_id: int) -> ChainContracts | None:
    """Return the chain's well-known contracts, or None if the chain is not in the table."""
    return _KNOWN.get(chain_id)
