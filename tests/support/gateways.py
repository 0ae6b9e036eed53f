"""A gateway in a process or a thread, and a node that records its requests and answers as the test defines."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from tests.support.nodes import serving_application
from trace_dagster.config.settings import Settings
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import DevNodeMethods
from trace_dagster.gateway.gateway import Gateway
from trace_dagster.gateway.server import ClientConnection

SURE_SECONDS = 0.8
"""Period in which a node never counts more calls than a limit per second allows. The limit is exact where calls are
sent (tests/unit/test_gateway_budget.py); on a busy machine one arrives up to a fifth of a second later than another.
"""

Said = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]
"""HTTP status and body, and headers of its own."""


@dataclass
class WatchedNode:
    """A devchain that records each HTTP request; ``manner`` may answer instead of it, after any time."""

    methods: DevNodeMethods
    url: str = ""
    requests: list[tuple[float, list[dict[str, Any]]]] = field(default_factory=list)
    """Time and calls of each request."""
    forms: list[type] = field(default_factory=list)
    """``list`` for each request that was a batch, ``dict`` for each single object."""
    manner: Callable[[list[dict[str, Any]]], Said | None] = lambda calls: None
    delay: Callable[[list[dict[str, Any]]], float] = lambda calls: 0.0
    most_at_once: int = 0
    _at_once: int = 0

    @property
    def calls(self) -> Counter[str]:
        """Number of calls by method."""
        return Counter(call["method"] for _, calls in self.requests for call in calls)

    async def __call__(self, scope, receive, send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = json.loads(body)
        calls = asked if isinstance(asked, list) else [asked]
        self.requests.append((time.monotonic(), calls))
        self.forms.append(type(asked))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(self.delay(calls))
        self._at_once -= 1
        answers = [self.methods.answer(call) for call in calls]
        honest = b"[" + b",".join(answers) + b"]" if isinstance(asked, list) else answers[0]
        status, said, *more = self.manner(calls) or (200, honest)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode())]
        headers += [(name.encode(), value.encode()) for each in more for name, value in each.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": said})


@contextmanager
def watched(chain: DevChain, certificate: Path | None = None) -> Iterator[WatchedNode]:
    """Serve a recording node."""
    node = WatchedNode(DevNodeMethods(chain))
    with serving_application(node, certificate) as node.url:
        yield node


class Door:
    """A gateway from the point of view of its callers."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, *params: Any, at: str = "dev/1") -> Any:
        """Send one call and return its result. An error response raises RpcFailed."""
        answer = self.post({"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}, at)
        assert answer["id"] == 7
        if "error" in answer:
            raise RpcFailed(answer["error"])
        return answer["result"]

    def post(self, body: Any, at: str = "dev/1") -> Any:
        """Return the response to a request or a batch."""
        return json.loads(fetch(f"{self.url}/{at}", json.dumps(body).encode())[1])

    def counts(self, endpoint: str = "dev#1") -> dict[str, Any]:
        """Return the gateway's counters of an endpoint."""
        return json.loads(fetch(f"{self.url}/status")[1])["endpoints"][endpoint]


class GatewayProcess(Door):
    """A gateway process from the point of view of its owner."""

    def __init__(self, environment: dict[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trace_dagster.gateway", "--owned"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**kept, **environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().decode()
        super().__init__(json.loads(self.said)["url"] if self.said else "")

    def end(self) -> str:
        """Release the process and return everything that it printed."""
        out, errors = self.process.communicate(timeout=10)
        return self.said + out.decode() + errors.decode()


class RpcFailed(Exception):
    """An error response."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.code = error["code"]
        self.message = error["message"]


@contextmanager
def gateway_process(**environment: str) -> Iterator[GatewayProcess]:
    """Run a gateway process with this environment; the pool ``dev`` is given as ``dev=url``."""
    started = GatewayProcess(_variables(environment))
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.communicate()


@contextmanager
def gateway(*, at: int = 0, **environment: str) -> Iterator[Door]:
    """Run a gateway in a thread, which starts faster than a process; ``at`` is a port, 0 a free one."""
    token = "token-of-this-test"
    loop = uvloop.new_event_loop()
    started: Future[int] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        served = Gateway(Settings.read(_variables(environment)).rpc, token)
        server = await loop.create_server(lambda: ClientConnection(served.answer), "127.0.0.1", at)
        started.set_result(server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()
        await served.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield Door(f"http://127.0.0.1:{started.result(10)}/{token}")
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def _variables(environment: dict[str, str]) -> dict[str, str]:
    variables = {name: value for name, value in environment.items() if name.isupper()}
    return variables | {
        f"TRACE_RPC_POOL_{name.upper()}_URL": url for name, url in environment.items() if name.islower()
    }


def ask_heads(url: str, times: int) -> int:
    """Request the head this many times, 16 at the same time; return the number of answers. Runs in a separate
    process.
    """
    door = Door(url)
    with ThreadPoolExecutor(16) as threads:
        return len(list(threads.map(lambda _: door.ask("eth_blockNumber"), range(times))))


def fetch(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return (status, body) of a GET, or of a POST of JSON."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
