"""Devchains served over HTTP, whole or forked, and a runtime over real Postgres and S3 that uses them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import application
from trace_dagster.runtime import Runtime
from trace_dagster.settings import settings_from
from trace_dagster.store.access import S3Access


def forked(seed: int, at: int, blocks: int) -> DevChain:
    """The chain of ``seed``, but another one from block ``at`` on."""
    chain = DevChain(seed, at)
    chain.seed = seed + 1000
    chain.grow(blocks)
    return chain


@contextmanager
def serving(chain: DevChain) -> Iterator[str]:
    """The URL of a node that serves a chain."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(chain), log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def environment(postgres_url: str, s3: S3Access, **pools: str) -> dict[str, str]:
    """What a process is started with; pools by name, endpoints comma-separated."""
    return {
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_S3_ENDPOINT": s3.endpoint or "",
        "TRACE_S3_BUCKET": s3.bucket,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        **{f"TRACE_RPC_POOL_{name.upper()}_URL": urls for name, urls in pools.items()},
    }


@contextmanager
def running(postgres_url: str, s3: S3Access, quorum: int = 1, **pools: str) -> Iterator[Runtime]:
    """One process's parts over these pools, without Dagster."""
    variables = environment(postgres_url, s3, **pools)
    variables |= {f"TRACE_RPC_POOL_{name.upper()}_QUORUM": str(quorum) for name in pools}
    runtime = Runtime(settings_from(variables))
    try:
        yield runtime
    finally:
        runtime.close()
