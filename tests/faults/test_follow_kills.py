"""SIGKILL of the follower and of Postgres: nothing is lost or doubled, and new blocks are visible within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psycopg
import pytest

from tests.support.following import NO_GATEWAY, NO_S3, eventually, follow_job, hot_blocks, stored_chain
from tests.support.growing import dev_node
from tests.support.nodes import environment
from trace_dagster.devchain.chain import BusyBlocks, DevChain
from trace_dagster.lite.ports import Ports
from trace_dagster.lite.postgres import dsn, postgres_service
from trace_dagster.lite.processes import Child
from trace_dagster.registry.connection import Database
from trace_dagster.registry.migrations import migrate

pytestmark = pytest.mark.faults
FOLLOW = """
import os, threading
from trace_dagster.config.settings import settings_from
from trace_dagster.runtime import Runtime
Runtime(settings_from(dict(os.environ))).followers.run(threading.Event())
"""
BACK_SECONDS = 5.0
SLOW_MACHINE = 3.0
"""Factor for a machine that runs other tests beside."""


@contextmanager
def follower(postgres_url, url):
    variables = environment(postgres_url, NO_S3, node=url) | NO_GATEWAY
    process = subprocess.Popen([sys.executable, "-c", FOLLOW], env=os.environ | variables)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def assert_whole(database, streams, chain):
    """Assert that every block is stored a single time, with its rows."""
    assert stored_chain(database) == {block.number: block.hash for block in chain.blocks}
    logs = sum(block.log_count for block in chain.blocks)
    with database.connection() as connection:
        assert connection.execute("select count(*) as n from hot.logs").fetchone()["n"] == logs
    for stream in streams.values():
        assert hot_blocks(database, stream.dataset_uuid) == [block.number for block in chain.blocks]


def test_another_follower_goes_on_where_one_was_killed(postgres_url, database):
    chain = DevChain(7, 250)
    with dev_node(chain) as node, follower(postgres_url, node.url) as first, follower(postgres_url, node.url) as second:
        streams = follow_job(database)
        processes = [first, second]
        eventually(lambda: len(stored_chain(database)) > 60, 60)  # in the middle of filling
        holder = _holder(database)
        (killed,) = [each for each in processes if holder.endswith(f":{each.pid}")]
        os.kill(killed.pid, signal.SIGKILL)
        chain.mine()
        started = time.monotonic()
        eventually(lambda: chain.head in stored_chain(database))
        assert time.monotonic() - started < BACK_SECONDS * SLOW_MACHINE
        eventually(lambda: len(stored_chain(database)) == 251, 60)
        assert_whole(database, streams, chain)
        assert _holder(database) != holder


def test_blocks_are_visible_soon_after_postgres_is_back(open_folder):
    folder = open_folder / "killed"
    folder.mkdir()
    port = Ports({}).take()
    service = postgres_service(folder / "postgres", port, "secret")
    postgres = Child(service, folder / "postgres.log")
    postgres.wait_healthy()
    url = dsn(port, "secret", "postgres")
    migrate(url)
    database = Database(url)
    chain = DevChain(7, 30)
    chain.busy = BusyBlocks(20, 40)
    try:
        with dev_node(chain) as node, follower(url, node.url):
            streams = follow_job(database)
            eventually(lambda: len(stored_chain(database)) == 30, 60)
            for down_seconds in (0.0, 12.0):
                chain.mine()
                os.kill(postgres.pid, signal.SIGKILL)
                eventually(lambda: postgres.dead)
                time.sleep(down_seconds)
                chain.mine()
                postgres.restart()
                postgres.wait_healthy()
                started = time.monotonic()
                _visible(url, chain)
                assert time.monotonic() - started < BACK_SECONDS * SLOW_MACHINE
            database.close()
            database = Database(url)
            assert_whole(database, streams, chain)
    finally:
        database.close()
        postgres.signal_stop()
        postgres.wait_stopped(10)


def _visible(url, chain):
    query, head = "select 1 from hot.chain where block_hash = %s", chain.blocks[-1].hash
    with psycopg.connect(url, autocommit=True) as connection:
        eventually(lambda: connection.execute(query, [head]).fetchone())


def _holder(database):
    with database.connection() as connection:
        return connection.execute("select holder from hot.followers").fetchone()["holder"]
