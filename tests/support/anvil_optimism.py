"""A real EVM node with the OP Stack's features: the usual history, and blocks that begin with deposits from L1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.support import contracts
from tests.support.anvil_history import AnvilChain, build_history
from tests.support.anvil_node import REPOSITORY, find_anvil, running_anvil
from tests.support.imitated.drafts import unsigned
from tests.support.imitated.hexadecimal import shown
from tests.support.imitated.transactions import envelope

CHAIN_ID = 7_777_777
"""Zora, an OP Stack chain of the table that no imitated node serves."""
DEPOSIT_BLOCKS = 8


@contextmanager
def running_optimism(root: Path = REPOSITORY) -> Iterator[AnvilChain]:
    """Run a node with the whole chain built. Raises ``RuntimeError`` if anvil is not installed below ``root``."""
    binary = find_anvil(root)
    if binary is None:
        raise RuntimeError("the EVM node is missing: `make node` fetches it with npm")
    with running_anvil(binary, CHAIN_ID, network="optimism") as node:
        chain = build_history(node)
        for number in range(DEPOSIT_BLOCKS):
            _mine_deposits(chain, number)
        node.mine_empty(3)
        yield AnvilChain(
            node, int(node.rpc("eth_blockNumber"), 16), chain.accounts, chain.token, chain.weth, chain.router
        )


def _mine_deposits(chain: AnvilChain, number: int) -> None:
    """Mine a block with a deposit that mints ether, one with logs or a failure or a creation, and a transfer."""
    senders, receiver = (chain.accounts[3], chain.accounts[6]), chain.accounts[4]
    too_much = contracts.transfer(receiver, 2**255)
    others: list[dict[str, Any]] = [
        {"to": chain.token, "input": contracts.transfer(receiver, 5 + number), "value": "0x0"},
        {"to": chain.token, "input": too_much, "value": "0x0"},
        {"to": None, "input": "0x" + contracts.TOKEN.hex(), "value": "0x0"},
    ]
    mint = {"to": receiver, "input": "0x", "value": "0x5", "mint": hex(10**18 + number)}
    deposits = [_deposit(sender, each) for sender, each in zip(senders, (mint, others[number % 3]), strict=True)]
    calls = [("eth_sendRawTransaction", [each]) for each in deposits]
    transfer = {"from": chain.accounts[5], "to": receiver, "value": "0x1", "gas": hex(21_000)}
    chain.node.batch([*calls, ("eth_sendTransaction", [transfer]), ("evm_mine", [])])


_sources = count(1)


def _deposit(sender: str, fields: dict[str, Any]) -> str:
    """Return the bytes of a deposit. Its source hash is a new one each time, so that no two are the same."""
    whole = {"type": "0x7e", "sourceHash": f"0x{next(_sources):064x}", "from": sender, "gas": hex(2_000_000), **fields}
    return shown(envelope(unsigned(whole, "op"), "op"))
