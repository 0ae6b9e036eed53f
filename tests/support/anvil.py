"""A real EVM node holding a small, deterministic chain that exercises every kind of row.

    with running_chain() as chain:
        chain.url, chain.rpc("eth_blockNumber"), chain.head, chain.token, chain.weth

The blocks hold ether transfers, contract creations, an ERC-20-like and a WETH-like token, nested and failing
calls, reverted transactions, transaction types 0, 1, 2 and 4, and empty blocks. Hashes are the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.anvil_history import AnvilChain, build_history
from tests.support.anvil_node import REPOSITORY, find_anvil, running_anvil

__all__ = ["AnvilChain", "find_anvil", "running_chain"]


@contextmanager
def running_chain(root: Path = REPOSITORY) -> Iterator[AnvilChain]:
    """Run a node with the whole chain built. Raises ``RuntimeError`` if anvil is not installed below ``root``."""
    binary = find_anvil(root)
    if binary is None:
        raise RuntimeError("the EVM node is missing: `make node` fetches it with npm")
    with running_anvil(binary) as node:
        yield build_history(node)
