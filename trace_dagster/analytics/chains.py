"""Well-known contracts per chain: what analytics look at unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from trace_dagster.devchain import constants


@dataclass(frozen=True, slots=True)
class ChainContracts:
    """Addresses as 0x text; None where a chain has no such contract."""

    token: str
    token_name: str
    staking: str | None


_STAKING_PRECOMPILE = "0x" + constants.STAKING.hex()

_KNOWN = {
    143: ChainContracts("0x3bd359C1119dA7Da1D913D1C4D2B7c461115433A", "WMON", _STAKING_PRECOMPILE),
    10143: ChainContracts("0x3bd359C1119dA7Da1D913D1C4D2B7c461115433A", "WMON", _STAKING_PRECOMPILE),
    1: ChainContracts("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "WETH", None),
    constants.CHAIN_ID: ChainContracts("0x" + constants.TOKEN.hex(), "devchain token", _STAKING_PRECOMPILE),
}


def contracts_of(chain_id: int) -> ChainContracts | None:
    """The chain's well-known contracts, or None for a chain we know nothing of."""
    return _KNOWN.get(chain_id)
