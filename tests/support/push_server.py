"""A WebSocket server that pushes the heads of a devchain, or anything else that a test makes of it."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.devchain.encode import header_json

SUBSCRIPTION = "0x5ub5cr1b3d"


class PushServer:
    """The server of one chain. Its members may be changed while it runs."""

    def __init__(self, chain: DevChain) -> None:
        self.chain = chain
        self.url = ""
        self.chain_id = CHAIN_ID
        self.is_silent = False
        """True if it accepts subscriptions and pushes nothing."""
        self.refusal: dict[str, Any] | None = None
        """The error with which it answers subscriptions."""
        self.connections: list[ServerConnection] = []
        self.accepted = 0
        """Subscriptions that it has accepted so far."""

    def say(self, message: str | bytes) -> None:
        """Send a message as it is on every connection."""
        for connection in list(self.connections):
            with suppress(ConnectionClosed):
                connection.send(message)

    def push(self, result: Any, subscription: str = SUBSCRIPTION) -> None:
        """Send a notification with any result."""
        self.say(json.dumps(notification(result, subscription)))

    def mined(self, block: DevBlock) -> None:
        if not self.is_silent:
            self.push(header_json(block))

    def handle(self, connection: ServerConnection) -> None:
        for message in connection:
            asked = json.loads(message)
            answer: dict[str, Any] = {"result": hex(self.chain_id)}
            if asked["method"] == "eth_subscribe":
                answer = {"error": self.refusal} if self.refusal else {"result": SUBSCRIPTION}
            connection.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}))
            if asked["method"] == "eth_subscribe" and not self.refusal:
                self.accepted += 1
                self.connections.append(connection)


def notification(result: Any, subscription: str = SUBSCRIPTION) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "method": "eth_subscription",
        "params": {"subscription": subscription, "result": result},
    }


@contextmanager
def pushing(
    chain: DevChain, *, port: int = 0, certificate: Path | None = None, handle: Callable[..., None] | None = None
) -> Iterator[PushServer]:
    """Serve subscriptions to a chain's heads; wss if there is a file with certificate and key."""
    pushed = PushServer(chain)
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with serve(handle or pushed.handle, "127.0.0.1", port, ssl=context, ping_interval=None) as server:
        pushed.url = f"{'wss' if certificate else 'ws'}://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        chain.listeners.append(pushed.mined)
        try:
            yield pushed
        finally:
            chain.listeners.remove(pushed.mined)
            server.shutdown()
            for connection in list(pushed.connections):
                connection.close_socket()
            thread.join(10)
