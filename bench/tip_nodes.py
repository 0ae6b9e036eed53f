"""The nodes of :mod:`bench.tip`: their chains have a history, and grow by a busy block at an interval."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.support.anvil_node import CHAIN_ID as ANVIL_CHAIN_ID
from tests.support.growing import busy_anvil, growing
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.store.objects import reachable

HISTORY = {"devchain": 12_000, "anvil": 1_000}
"""Blocks of each chain at the start."""
_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class TipNode:
    """A node under measurement."""

    name: str
    url: str
    chain_id: int
    history: int

    @property
    def ws_url(self) -> str:
        """The node's WebSocket."""
        return self.url.replace("http", "ws", 1)


@contextmanager
def devchain(interval_seconds: float, transactions: int, logs: int) -> Iterator[TipNode]:
    """Run a devchain in a process of its own."""
    port = Ports({}).take()
    command = [sys.executable, "-m", "trace_dagster.devchain", "--port", str(port)]
    command += ["--blocks", str(HISTORY["devchain"]), "--block-interval-seconds", str(interval_seconds)]
    command += ["--busy", str(transactions), str(logs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not reachable(f"http://{HOST}:{port}") and time.monotonic() < deadline:
            time.sleep(0.1)
        yield TipNode("devchain", f"http://{HOST}:{port}", CHAIN_ID, HISTORY["devchain"])
    finally:
        process.kill()
        process.wait()


@contextmanager
def anvil(interval_seconds: float, transactions: int, _: int) -> Iterator[TipNode]:
    """Run an anvil; each transaction makes two logs."""
    with busy_anvil(transactions) as node:
        for _ in range(HISTORY["anvil"]):
            node.mine()
        with growing(node, interval_seconds) as chain:
            yield TipNode("anvil", chain.url, ANVIL_CHAIN_ID, HISTORY["anvil"])


Running = Callable[[float, int, int], AbstractContextManager[TipNode]]
NODES: dict[str, Running] = {"anvil": anvil, "devchain": devchain}
