"""The tip on the real stack: a growing chain is followed by the service, by the sensor, and by the command alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass

import psutil
import pytest

from tests.acceptance.conftest import ROOT, Running
from trace_dagster.cli.commands import run_query
from trace_dagster.cli.dagster_client import DagsterWeb
from trace_dagster.config.settings import Settings
from trace_dagster.lite.stack import Stack
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.status import job_statuses
from trace_dagster.registry.tip_status import ChainTip, chain_tips
from trace_dagster.rpc.client import block_number_of, call
from trace_dagster.rpc.pools import Endpoint

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

JOB = """
kind: chain_sync
name: tip
chain_id: 20143
mode: {kind: follow_head, from_block: latest-250, head_poll_interval_seconds: 1}
defaults: {rpc_pool: devchain, chunk_size: 50}
streams:
  blocks: {cryo_dataset_name: blocks}
  logs: {cryo_dataset_name: logs}
"""
CHECK = """
{ assetNodes(assetKeys: [{path: ["20143", "blocks"]}]) { assetChecksOrError { ... on AssetChecks { checks {
  name executionForLatestMaterialization { evaluation { success description metadataEntries { label
    ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } } } } } } } } }
"""
SENSOR_SECONDS = 15.0
"""Lag of the sensor alone."""


@dataclass
class Followed(Running):
    """A stack whose devchain grows by a block a second, and its job."""

    node: Endpoint
    settings: Settings
    database: Database
    seconds: float = 0.0
    """Time from the end of `apply` to the first answer with the newest block."""

    def tip(self) -> ChainTip:
        """Return the chain's tip, which `status` shows."""
        [tip] = chain_tips(self.database)
        return tip

    def ask(self, sql: str) -> tuple:
        """Return the first row of an answer."""
        return run_query(sql, self.settings, 1).rows[0]


@pytest.fixture(scope="module")
def followed(open_folder, tmp_path_factory):
    """Run a stack of its own, because the shared one's devchain stands still; apply a job that follows the devchain."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "AWS_"))}
    environment |= {
        "TRACE_HOME": str(open_folder / "tip"),
        "TRACE_DEVCHAIN_BLOCKS": "1002",
        "TRACE_DEVCHAIN_BLOCK_INTERVAL_SECONDS": "1",
    }
    path = tmp_path_factory.mktemp("tip") / "tip.yaml"
    path.write_text(JOB)
    with Stack(Settings.read(environment)).running(lambda _: None) as state:
        node = Endpoint("devchain", 1, f"http://{state.devchain_address}")
        settings = Settings.read({**environment, **state.environment()})
        with closing(Database(settings.postgres_url)) as database:
            running = Followed(open_folder / "tip", state, environment, node, settings, database)
            done = running.cli("apply", "--file", str(path))
            assert done.returncode == 0, done.stderr
            applied, head = time.monotonic(), block_number_of(node)
            until(lambda: (running.tip().head or 0) >= head)
            assert running.ask("select max(block_number) from blocks")[0] >= head
            running.seconds = time.monotonic() - applied
            yield running


def until(what, seconds=60.0):
    """Wait for a truthy result, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.3)
    return pytest.fail("it did not happen in time")


def test_the_newest_block_is_in_sql_soon_after_apply(followed):
    assert followed.seconds < 10
    tip = followed.tip()
    assert tip.head - tip.finalized <= 4
    assert tip.lag_seconds < 5
    assert tip.followed_by.endswith(f":{service(followed).pid}")
    shown = followed.cli("status").stdout
    assert "chain 20143 (trace devchain)" in shown
    assert " proposed " in shown


def test_history_follows_and_each_block_is_seen_once(followed):
    sql = "select count(*), count(distinct block_number), min(block_number), max(block_number) from blocks"

    def is_whole():
        rows, distinct, first, last = followed.ask(sql)
        assert rows == distinct
        return first <= 800 and rows == last - first + 1

    until(is_whole, 120)
    [job] = job_statuses(followed.database, Jobs(followed.database))
    assert all(stream.committed_blocks > 0 and stream.hot_blocks > 0 for stream in job.streams)


def test_a_reorganisation_is_found(followed):
    call(followed.node, "dev_reorg", [2, 3])
    reorg = until(lambda: followed.tip().last_reorg)
    assert reorg.depth >= 2
    assert reorg.fork_block > 1000


def test_the_check_of_an_asset_says_where_the_tip_is(followed):
    def evaluation():
        [node] = DagsterWeb(followed.state.web_url)._client._execute(CHECK)["assetNodes"]
        by_name = {
            each["name"]: each["executionForLatestMaterialization"] for each in node["assetChecksOrError"]["checks"]
        }
        return (by_name["tip"] or {}).get("evaluation")

    found = until(evaluation)
    shown = {entry["label"]: entry.get("intValue") or entry.get("text") for entry in found["metadataEntries"]}
    assert found["success"], found
    assert shown["head_block"] >= 1002
    assert "is the newest" in found["description"]
    until(lambda: (shown := evaluation()) and "blocks from 1,0" in str(shown["metadataEntries"]), 90)


def test_the_sensor_takes_over_and_the_command_alone_follows_again(followed):
    """Check that the service may die: the sensor's lag stays within bounds, and another process takes the lease."""
    killed = service(followed)
    os.kill(killed.pid, signal.SIGKILL)
    before = followed.tip().head
    until(lambda: followed.tip().head > before + 1, SENSOR_SECONDS)
    lags = []
    for _ in range(80):
        lags.append(followed.tip().lag_seconds)
        time.sleep(0.1)
    assert max(lags) < SENSOR_SECONDS
    command = [sys.executable, "-m", "trace_dagster.cli.main", "follow", "--chain", "20143"]
    log = followed.home / "alone.log"
    with log.open("wb") as output:
        alone = subprocess.Popen(command, env=followed.environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        until(lambda: str(followed.tip().followed_by).endswith(f":{alone.pid}"))
        until(lambda: followed.tip().lag_seconds < 3)
    finally:
        alone.terminate()
    assert alone.wait(20) == 0, log.read_text()
    assert not str(followed.tip().followed_by).endswith(f":{alone.pid}")  # its lease was given back at once


def service(followed) -> psutil.Process:
    """Return the process of the stack's follower."""
    [found] = [
        process
        for process in psutil.Process(os.getpid()).children()
        if "follow" in process.cmdline() and str(followed.home / "follower.heartbeat") in process.cmdline()
    ]
    return found
