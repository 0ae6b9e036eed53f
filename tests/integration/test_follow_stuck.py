"""The process of the follower ends, and is started again by its supervisor, when a chain's thread is stuck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.following import NO_GATEWAY, NO_S3, eventually, follow_job, hot_blocks
from tests.support.growing import dev_node
from tests.support.nodes import environment
from trace_dagster.devchain.chain import DevChain

pytestmark = pytest.mark.integration

FOLLOW = """
import os, pathlib, signal, sys
from trace_dagster.cli.follow import run_follower
from trace_dagster.config.settings import settings_from
from trace_dagster.follow import follower

signal.signal(signal.SIGUSR1, lambda *_: setattr(follower, "LONGEST_STEP_SECONDS", 2.0))
say = lambda line: print(line, file=sys.stderr, flush=True)
run_follower(settings_from(os.environ), say, (), pathlib.Path(sys.argv[1]))
"""


def test_the_process_ends_when_a_chains_thread_is_stuck(postgres_url, database, tmp_path):
    heartbeat, log = tmp_path / "heartbeat", tmp_path / "log"
    stream = follow_job(database, datasets=("logs",))["logs"]
    with dev_node(DevChain(7, 30)) as node, log.open("w") as said:
        given = {name: value for name, value in os.environ.items() if not name.startswith("TRACE_")}
        variables = {**given, **environment(postgres_url, NO_S3, node=node.url), **NO_GATEWAY}
        command = [sys.executable, "-c", FOLLOW, str(heartbeat)]
        with subprocess.Popen(command, env=variables, stderr=said) as process:
            try:
                eventually(
                    lambda: process.poll() is not None or len(hot_blocks(database, stream.dataset_uuid)) == 30, 60
                )
                assert heartbeat.exists(), log.read_text()
                with database.connection() as connection, connection.transaction():
                    connection.execute("select 1 from hot.followers for update")
                    process.send_signal(signal.SIGUSR1)
                    assert process.wait(30) == 1
            finally:
                process.kill()
    assert not heartbeat.exists()
    assert "the thread of chain 20143 is stuck" in log.read_text()
