"""Nodes whose chain grows and forks while something follows it, and a record of which blocks were canonical when.

with dev_node(DevChain(7, 100)) as node, growing(node, interval_seconds=0.3) as chain:
    chain.url, chain.websocket_url, chain.reorg(3, 4), chain.head, chain.ancestry(block_hash)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tests.support.anvil_node import CHAIN_ID, REPOSITORY, Anvil, find_anvil, running_anvil
from tests.support.evm_assembly import assemble, creation_code
from tests.support.nodes import serving
from trace_dagster.devchain.chain import DevChain

_GAS, _GAS_TO_DEPLOY = hex(100_000), hex(1_000_000)
_TWO_LOGS = assemble("0 CALLDATALOAD 0 MSTORE CALLER 0 CALLDATALOAD 32 0 LOG2 CALLER 0 CALLDATALOAD 32 0 LOG2 STOP")
"""Logs its first word twice, with the caller as second topic."""


class Link(NamedTuple):
    """A block of a chain and its parent."""

    number: int
    hash: bytes
    parent_hash: bytes


class ForkingNode(Protocol):
    """A node whose chain the test drives."""

    url: str

    def mine(self) -> None: ...

    def reorg(self, depth: int, blocks: int) -> None: ...

    def links(self, first: int) -> list[Link]:
        """Return the chain's blocks from number ``first`` to the newest one."""


@dataclass
class DevNode:
    """A devchain that this process serves."""

    chain: DevChain
    url: str

    def mine(self) -> None:
        self.chain.mine()

    def reorg(self, depth: int, blocks: int) -> None:
        self.chain.reorg(depth, blocks)

    def links(self, first: int) -> list[Link]:
        return [Link(block.number, block.hash, block.parent_hash) for block in self.chain.blocks[first:]]


@contextmanager
def dev_node(chain: DevChain) -> Iterator[DevNode]:
    """Serve a devchain whose new blocks have the real time."""
    chain.clock = time.time
    with serving(chain) as url:
        yield DevNode(chain, url)


class BusyAnvil:
    """A real node whose blocks have ``transactions`` transactions, each with two logs."""

    def __init__(self, node: Anvil, transactions: int) -> None:
        self.url = node.url
        self._node = node
        self._transactions = transactions
        self._accounts = node.rpc("eth_accounts")
        self._calls = 0
        code = f"0x{creation_code(_TWO_LOGS).hex()}"
        (deployed,) = node.mine({"from": self._accounts[0], "data": code, "gas": _GAS_TO_DEPLOY})
        self._contract = node.rpc("eth_getTransactionReceipt", deployed)["contractAddress"]

    def mine(self) -> None:
        self._node.mine(*self._calls_of_a_block())

    def reorg(self, depth: int, blocks: int) -> None:
        """Replace the last ``depth`` blocks. With fewer blocks than that, the head is lower in between and after it."""
        if blocks < depth:
            self._node.rpc("anvil_rollback", depth)
        else:
            self._node.rpc("anvil_reorg", depth, [[call, i] for i in range(depth) for call in self._calls_of_a_block()])
        for _ in range(blocks if blocks < depth else blocks - depth):
            self.mine()

    def links(self, first: int) -> list[Link]:
        head = int(self._node.rpc("eth_blockNumber"), 16)
        calls: list[tuple[str, list[Any]]] = [
            ("eth_getBlockByNumber", [hex(number), False]) for number in range(first, head + 1)
        ]
        return [_link(block) for block in self._node.batch(calls)] if calls else []

    def _calls_of_a_block(self) -> list[dict[str, str]]:
        self._calls += self._transactions
        return [
            {
                "from": self._accounts[call % len(self._accounts)],
                "to": self._contract,
                "data": f"0x{call:064x}",
                "gas": _GAS,
            }
            for call in range(self._calls - self._transactions, self._calls)
        ]


@contextmanager
def busy_anvil(
    transactions: int = 20, root: Path = REPOSITORY, chain_id: int = CHAIN_ID, slots_in_an_epoch: int = 1
) -> Iterator[BusyAnvil]:
    """Run a fresh node. Raises ``RuntimeError`` if anvil is not installed below ``root``."""
    binary = find_anvil(root)
    if binary is None:
        raise RuntimeError("the EVM node is missing: `make node` fetches it with npm")
    with running_anvil(binary, chain_id, slots_in_an_epoch=slots_in_an_epoch, timestamp=int(time.time())) as node:
        yield BusyAnvil(node, transactions)


@dataclass(slots=True)
class _Seen:
    """A block of any branch. Times are of the monotonic clock, in seconds."""

    link: Link
    shown_at: float
    gone_at: float | None = None


@dataclass
class GrowingChain:
    """A node's chain while it grows and forks, and all blocks that it ever had."""

    node: ForkingNode
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _seen: dict[bytes, _Seen] = field(default_factory=dict)
    _canonical: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._record(0)

    @property
    def url(self) -> str:
        return self.node.url

    @property
    def websocket_url(self) -> str:
        return self.node.url.replace("http", "ws", 1)

    @property
    def head(self) -> Link:
        """The newest block of the canonical chain."""
        with self._lock:
            return self._seen[self._canonical[-1]].link

    def mine(self, blocks: int = 1) -> Link:
        """Append blocks, and return the new head."""
        with self._lock:
            for _ in range(blocks):
                self.node.mine()
                self._record(len(self._canonical))
            return self.head

    def reorg(self, depth: int, blocks: int) -> Link:
        """Replace the last ``depth`` blocks by ``blocks`` others, and return the new head."""
        with self._lock:
            self.node.reorg(depth, blocks)
            self._record(len(self._canonical) - depth)
            return self.head

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Mine no blocks until the end of the block, except by the caller."""
        with self._lock:
            yield

    def shown_at(self, block_hash: bytes) -> float:
        """Return when the node showed a block first, in seconds of the monotonic clock."""
        with self._lock:
            return self._seen[block_hash].shown_at

    def was_canonical(self, block_hash: bytes, since: float) -> bool:
        """Return whether a block was part of the node's chain at any time from ``since`` on."""
        with self._lock:
            seen = self._seen.get(block_hash)
            return seen is not None and (seen.gone_at is None or seen.gone_at >= since)

    def ancestry(self, block_hash: bytes) -> dict[int, bytes]:
        """Return the hash of each block below a head by number, the head included."""
        found = {}
        with self._lock:
            while (seen := self._seen.get(block_hash)) is not None:
                found[seen.link.number] = block_hash
                block_hash = seen.link.parent_hash
        return found

    def _record(self, first: int) -> None:
        """Record the blocks from ``first`` on; what was there before is gone."""
        now = time.monotonic()
        for block_hash in self._canonical[first:]:
            self._seen[block_hash].gone_at = now
        del self._canonical[first:]
        for link in self.node.links(first):
            seen = self._seen.setdefault(link.hash, _Seen(link, now))
            seen.gone_at = None
            self._canonical.append(link.hash)


@contextmanager
def growing(node: ForkingNode, interval_seconds: float) -> Iterator[GrowingChain]:
    """Let a node's chain grow by a block every ``interval_seconds`` until the end of the block."""
    chain, stopped, errors = GrowingChain(node), threading.Event(), []

    def run() -> None:
        due = time.monotonic()
        try:
            while not stopped.wait(due - time.monotonic()):
                chain.mine()
                due = max(due + interval_seconds, time.monotonic())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="growing-chain", daemon=True)
    thread.start()
    try:
        yield chain
    finally:
        stopped.set()
        thread.join(30)
    if errors:
        raise errors[0]


def _link(block: dict[str, Any]) -> Link:
    return Link(int(block["number"], 16), bytes.fromhex(block["hash"][2:]), bytes.fromhex(block["parentHash"][2:]))
