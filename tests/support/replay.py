"""A JSON-RPC server on loopback that replays a folder of real blocks (see ``recorded_blocks``).

    with replaying(folder) as server:
        server.url, server.chain.blocks, server.methods_served

Single requests and batches over HTTP POST, with errors as a node gives them. Every result is an answer of a mainnet
node.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from tests.support.recorded_blocks import RecordedChain, RpcError


class AnsweringChain(Protocol):
    """What a node's methods answer from."""

    def call(self, method: str, params: list[Any]) -> Any:
        """Return the ``result`` of one request. Raises RpcError if a node would answer with an error."""


class ReplayServer(ThreadingHTTPServer):
    """Serves one chain; ``methods_served`` counts the requests of each method."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, chain: AnsweringChain) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chain = chain
        self.methods_served: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, body: bytes) -> Any:
        """Return the response to one HTTP body: an answer, or a list of them for a batch."""
        try:
            request = json.loads(body)
        except ValueError:
            return _failure(None, RpcError(-32700, "parse error"))
        if isinstance(request, list) and request:
            return [self._answer_one(each) for each in request]
        return self._answer_one(request)

    def _answer_one(self, request: Any) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failure(None, RpcError(-32600, "invalid request"))
        self.methods_served[request["method"]] += 1
        try:
            result = self.chain.call(request["method"], request.get("params") or [])
        except RpcError as error:
            return _failure(request.get("id"), error)
        return {"jsonrpc": "2.0", "id": request.get("id"), "result": result}


def _failure(request_id: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": error.code, "message": str(error)}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive: the engine reuses its connections
    disable_nagle_algorithm = True
    server: ReplayServer

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        answer = json.dumps(self.server.answer(self.rfile.read(length))).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing, because requests are counted."""


@contextmanager
def replaying(folder: Path) -> Iterator[ReplayServer]:
    """Serve ``folder`` until the end of the block."""
    with serving_chain(RecordedChain(folder)) as server:
        yield server


@contextmanager
def serving_chain(chain: AnsweringChain) -> Iterator[ReplayServer]:
    """Serve any chain until the end of the block."""
    server = ReplayServer(chain)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
