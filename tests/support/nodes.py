"""Devchains served over HTTP, whole or forked, and a runtime over real Postgres and S3 that uses them."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from trace_dagster.config.settings import settings_from
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import application
from trace_dagster.runtime import Runtime
from trace_dagster.store.access import S3Access

Application = Callable[..., Awaitable[Any]]


def forked(seed: int, at: int, blocks: int) -> DevChain:
    """Return the chain of ``seed``, which differs from block ``at`` on."""
    chain = DevChain(seed, at)
    chain.seed = seed + 1000
    chain.grow(blocks)
    return chain


def serving(chain: DevChain) -> AbstractContextManager[str]:
    """Serve a chain; yield the node's URL."""
    return serving_application(application(chain))


def forwarding(url: str):
    """Return an ASGI application that forwards every request to the node at ``url``."""

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            await send({"type": "http.response.start", "status": answer.status, "headers": []})
            await send({"type": "http.response.body", "body": answer.read()})

    return app


@contextmanager
def counting(node) -> Iterator[tuple[str, Counter[str]]]:
    """Yield the URL of an ASGI node, and the number of JSON-RPC calls of each method that it has answered."""
    calls: Counter[str] = Counter()

    async def app(scope, receive, send):
        body = []

        async def heard():
            message = await receive()
            body.append(message.get("body", b""))
            return message

        async def answered(message):
            if message["type"] == "http.response.start":  # before the client can receive the answer and read the count
                asked = json.loads(b"".join(body))
                calls.update(each["method"] for each in (asked if isinstance(asked, list) else [asked]))
            await send(message)

        await node(scope, heard, answered)

    with serving_application(app) as url:
        yield url, calls


@contextmanager
def serving_application(app: Application, certificate: Path | None = None) -> Iterator[str]:
    """Serve an ASGI application instead of a node and yield its URL; https if there is a file with certificate
    and key.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", ssl_certfile=certificate)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def environment(postgres_url: str, s3: S3Access, **pools: str) -> dict[str, str]:
    """Return the environment variables of a process; pools by name, endpoints comma-separated."""
    return {
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_S3_ENDPOINT": s3.endpoint or "",
        "TRACE_S3_BUCKET": s3.bucket,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        **{f"TRACE_RPC_POOL_{name.upper()}_URL": urls for name, urls in pools.items()},
    }


@contextmanager
def running(
    postgres_url: str, s3: S3Access, quorum: int = 1, more: Mapping[str, str] | None = None, **pools: str
) -> Iterator[Runtime]:
    """Return one process's parts over these pools, without Dagster; ``more`` has other variables."""
    variables = environment(postgres_url, s3, **pools) | dict(more or {})
    variables |= {f"TRACE_RPC_POOL_{name.upper()}_QUORUM": str(quorum) for name in pools}
    runtime = Runtime(settings_from(variables))
    try:
        yield runtime
    finally:
        runtime.close()
