"""Follower and runs of docker/compose.yaml, which know only the gateway: one budget, in which the tip comes first."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.test_proofs import apply, commit
from tests.support.compose import Compose
from tests.support.following import eventually, follow_job, hot_blocks, stored_chain
from tests.support.gateways import Door
from tests.support.growing import dev_node
from trace_dagster.config.settings import settings_from
from trace_dagster.devchain.chain import DevChain
from trace_dagster.runtime import Runtime

pytestmark = pytest.mark.integration
TOKEN = "token-of-the-containers"
LIMIT = 60
"""Calls per second."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_the_tip_comes_before_the_backfill_of_other_containers(postgres_url, database, s3, tmp_path):
    chain, port = DevChain(7, 205), free_port()
    with dev_node(chain) as node:
        compose = Compose(
            env={
                "TRACE_POSTGRES_URL": postgres_url,
                "TRACE_S3_BUCKET": s3.bucket,
                "AWS_ACCESS_KEY_ID": s3.access_key,
                "AWS_SECRET_ACCESS_KEY": s3.secret_key,
                "AWS_REGION": "us-east-1",
                "TRACE_GATEWAY_TOKEN": TOKEN,
                "TRACE_CRYO_MODE": "real",
            },
            pools={
                "TRACE_RPC_POOL_DEV_URL": node.url,
                "TRACE_RPC_POOL_DEV_WS_URL": node.url.replace("http", "ws", 1),
                "TRACE_RPC_POOL_DEV_RPS": str(LIMIT),
            },
            replaced={
                "gateway:8546": f"127.0.0.1:{port}",
                "8546": str(port),
                "http://minio:9000": s3.endpoint,
                "/tmp/follower.heartbeat": str(tmp_path / "heartbeat"),
                "/var/lib/": f"{tmp_path}/",
            },
        )
        for service in ("code", "follower"):
            assert node.url not in str(compose.variables(service))
        assert not compose.is_healthy("gateway")
        with compose.running("gateway", tmp_path) as log:
            eventually(lambda: compose.is_healthy("gateway"), 20)
            runtime = Runtime(settings_from(compose.variables("code")))
            traces = apply(runtime, end=200, streams=("geth_calls",), verify="structural")["geth_calls"]
            logs = follow_job(database, datasets=("logs",), pool="dev", chunk=100)["logs"]
            with compose.running("follower", tmp_path), ThreadPoolExecutor(1) as run:
                eventually(lambda: hot_blocks(database, logs.dataset_uuid) == list(range(200, 205)), 30)
                assert compose.is_healthy("follower")
                door = Door(f"http://127.0.0.1:{port}/{TOKEN}")
                assert door.counts()["is_subscribed"]
                committed = run.submit(commit, runtime, traces, 0)
                eventually(lambda: door.counts()["queued"] > LIMIT)
                for _ in range(3):
                    block = chain.mine()
                    eventually(lambda block=block: stored_chain(database).get(block.number) == block.hash, 2)
                assert door.counts()["queued"] > 0, "the backfill still waits for the limit"
                assert committed.result(60).rows == chain.rows("geth_calls", 0, 100)
                counts = door.counts()
                assert counts["tip_calls"] > 0
                assert counts["limit"] == LIMIT, "no other gateway has a share of it"
            runtime.close()
        assert TOKEN not in log.read_text()
        assert node.url not in log.read_text()
