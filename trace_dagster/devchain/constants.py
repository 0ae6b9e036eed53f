"""The constants of the devchain: ids, contracts, event topics."""

from __future__ import annotations

from trace_dagster.datasets.chains import DEVCHAIN_ID, STAKING_PRECOMPILE

CHAIN_ID = DEVCHAIN_ID
GENESIS_TIMESTAMP = 1_760_000_000
GENESIS_SUPPLY_WEI = 10**29
BASE_FEE_WEI = 50_000_000_000
GAS_LIMIT = 200_000_000
REWARD_WEI = 25 * 10**18
FINAL_BEHIND = 2
"""Blocks between the newest block and the finalized one."""

ZERO_ADDRESS = bytes(20)
TOKEN = bytes.fromhex("754704bc059f8c67012fed69bc8a327a5aafb603")
"""An ERC-20 token whose mints and burns are transfers from and to the zero address."""
WRAPPED = bytes.fromhex("3bd359c1119da7da1d913d1c4d2b7c461115433a")
"""A token like WETH: it mints by Deposit and burns by Withdrawal, without a Transfer."""
COLLECTIBLE = bytes.fromhex("c0113c71b1e00000000000000000000000000721")
"""An ERC-721: its Transfer has the ERC-20's topic0 but four topics."""
STAKING = bytes.fromhex(STAKING_PRECOMPILE.removeprefix("0x"))

TRANSFER = bytes.fromhex("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")
DEPOSIT = bytes.fromhex("e1fffcc4923d04b559f4d29a8bfc6cda04eb5b0d3c460751c2402c5c5cc9109c")
WITHDRAWAL = bytes.fromhex("7fcf532c15f0a6db0bd6d0e038bea71d30d808c7d98cb3bf7268a95bf5081b65")

DELEGATE = bytes.fromhex("e4d4df1e1827dd28252fd5c3cd7ebccd3da6e0aa31f74c828f3c8542af49d840")
UNDELEGATE = bytes.fromhex("3e53c8b91747e1b72a44894db10f2a45fa632b161fdcdd3a17bd6be5482bac62")
WITHDRAW = bytes.fromhex("63030e4238e1146c63f38f4ac81b2b23c8be28882e68b03f0887e50d0e9bb18f")
CLAIM_REWARDS = bytes.fromhex("cb607e6b63c89c95f6ae24ece9fe0e38a7971aa5ed956254f1df47490921727b")
VALIDATOR_REWARDED = bytes.fromhex("3a420a01486b6b28d6ae89c51f5c3bde3e0e74eecbb646a0c481ccba3aae3754")
VALIDATOR_CREATED = bytes.fromhex("6f8045cd38e512b8f12f6f02947c632e5f25af03aad132890ecf50015d97c1b2")
EPOCH_CHANGED = bytes.fromhex("4fae4dbe0ed659e8ce6637e3c273cd8e4d3bf029b9379a9e8b3f3f27dbef809b")
BLOCKS_PER_EPOCH = 500
