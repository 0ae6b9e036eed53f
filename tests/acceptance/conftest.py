"""One real stack per session: Postgres, S3, devchain, Dagster's three processes; other chains as RPC pools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.jobs import job_file
from tests.support.browser import running_browser
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import imitating
from tests.support.query_page import page_service
from tests.support.replay import ReplayServer, replaying
from tests.support.service import RunningService
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.chaos_rpc.state import ChaosRpc
from trace_dagster.config.running_stack import StackState
from trace_dagster.config.settings import Settings
from trace_dagster.devchain import constants
from trace_dagster.devchain.chain import DevChain
from trace_dagster.lite.stack import Stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
BLOCKS = 1002
GROWING_CHAIN_ID = 31338
"""Different from the other node's id: two chains with one id would be two forks of one chain."""
SEED = 7
APPLIED_CHAINS = ("base", "arbitrum", "polygon")


@dataclass
class Running:
    """A running stack, with its commands and connections."""

    home: Path
    state: StackState
    environment: dict[str, str]

    def cli(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``trace-lite`` as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "trace_dagster.cli.main", *arguments],
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            cwd=ROOT,
        )

    def json(self, *arguments: str):
        """Return the JSON that a command prints to stdout."""
        done = self.cli(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return self.json("query", "--json", f"select count(*) from {table}")["rows"][0][0]


@pytest.fixture(scope="session")
def devchain() -> DevChain:
    """Return the chain that the stack serves, with its ledger."""
    return DevChain(SEED, BLOCKS)


@pytest.fixture(scope="session")
def real_blocks() -> Iterator[object | None]:
    """Serve TRACE_REAL_BLOCKS with a replaying node; yield None if the variable is not set."""
    folder = os.environ.get("TRACE_REAL_BLOCKS", "")
    if not folder:
        yield None
        return
    with replaying(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def node() -> Iterator[object | None]:
    """Run a real EVM node with a small chain; yield None if npm did not install it."""
    from tests.support.anvil import find_anvil, running_chain

    if find_anvil(ROOT) is None:
        yield None
        return
    with running_chain(ROOT) as chain:
        yield chain


@pytest.fixture(scope="session")
def growing() -> Iterator[object | None]:
    """Run an EVM node whose chain a test extends; yield None if npm did not install it."""
    from tests.support.anvil_node import find_anvil, running_anvil

    binary = find_anvil(ROOT)
    if binary is None:
        yield None
        return
    with running_anvil(binary, chain_id=GROWING_CHAIN_ID) as chain:
        yield chain


@pytest.fixture(scope="session")
def lines() -> Iterator[tuple[ChaosRpc, ChaosRpc]]:
    """Run two proxies to the devchain: the first returns lists that are too short, the other is honest."""
    with (
        chaos_rpc(None, faults=["truncate_tail", "empty_list"], rate=1.0, seed=1) as lying,
        chaos_rpc(None, faults=["delay"], rate=0.0, seed=1) as honest,
    ):
        yield lying, honest


@pytest.fixture(scope="session")
def imitated() -> Iterator[dict[str, ReplayServer]]:
    """Serve the imitated chains that a job of the acceptance tests syncs."""
    with ExitStack() as opened:
        yield {
            key: opened.enter_context(imitating(IMITATED[key].recipe, IMITATED[key].manner)) for key in APPLIED_CHAINS
        }


@pytest.fixture(scope="session")
def stack(open_folder, real_blocks, node, growing, lines, imitated) -> Iterator[Running]:
    """Run a stack; its pools are devchain, lying (with an honest second endpoint), node, growing, replay, dead, and
    the imitated chains.
    """
    home = open_folder / "home with space"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "AWS_"))}
    environment |= {
        "TRACE_HOME": str(home),
        "TRACE_DEVCHAIN_BLOCKS": str(BLOCKS),
        "TRACE_LEASE_TTL_SECONDS": "10",
        "TRACE_RPC_POOL_DEAD_URL": "http://user:hunter2secret@127.0.0.1:9/v1/KEY4f3a2b1c",
        "TRACE_RPC_POOL_LYING_URL": ",".join(line.url for line in lines),
    }
    environment |= {f"TRACE_RPC_POOL_{key.upper()}_URL": server.url for key, server in imitated.items()}
    if real_blocks is not None:
        environment["TRACE_RPC_POOL_REPLAY_URL"] = real_blocks.url
    if node is not None:
        environment["TRACE_RPC_POOL_NODE_URL"] = node.url
    if growing is not None:
        environment["TRACE_RPC_POOL_GROWING_URL"] = growing.url
    said: list[str] = []
    with Stack(Settings.read({**environment, "TRACE_HOME": str(home)})).running(said.append) as state:
        for line in lines:
            line.upstream_url = state.environment()["TRACE_RPC_POOL_DEVCHAIN_URL"]
        yield Running(home, state, environment)


@pytest.fixture(scope="session")
def synced(stack, tmp_path_factory):
    """Sync the devchain's first 1000 blocks, all four datasets."""
    path = job_file(tmp_path_factory.mktemp("jobs"), "golden", chain=constants.CHAIN_ID, end=1000)
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def service(postgres, template_database, s3_server) -> Iterator[RunningService]:
    """Run the service whose page a module opens."""
    with page_service(postgres, template_database, s3_server) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a browser for the tests of a module."""
    with running_browser() as running:
        yield running
