"""A subscription to new heads over WebSocket. The other side may send anything, at any rate, or nothing.

Texts of errors never contain a URL: it may hold a key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from trace_dagster.messages.provider_words import provider_words
from trace_dagster.rpc.heads import Head, head_of
from trace_dagster.rpc.provider_errors import code_and_text, quoted, words_in

CONNECT_SECONDS = 10.0
PING_SECONDS = 10.0
"""Seconds between pings, and until one that is not answered ends the connection."""

MOST_MESSAGE_BYTES = 256 * 1024
MOST_MESSAGES = 10_000
"""Messages within WINDOW_SECONDS; more of them end the connection, because reading them takes a core."""

WINDOW_SECONDS = 10.0
_SUBSCRIBE, _CHAIN_ID = 1, 2
_silent = logging.Logger("websockets", level=logging.CRITICAL + 1)
"""The library's own log lines could contain the URL."""


class SubscriptionLost(Exception):
    """There is no subscription (any more); the text gives the reason without the URL."""


class HeadSocket:
    """One connection with one subscription."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._subscription: str | None = None
        self._messages = 0
        self._window_ends = 0.0

    async def subscribe(self) -> str:
        """Subscribe to new heads. Return the chain id as the other side gives it. Raises SubscriptionLost."""
        await self._send(_SUBSCRIBE, "eth_subscribe", ["newHeads"])
        await self._send(_CHAIN_ID, "eth_chainId", [])
        results: dict[Any, Any] = {}
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while not results.keys() >= {_SUBSCRIBE, _CHAIN_ID}:
                    results |= _results(await self._received())
        except TimeoutError:
            raise SubscriptionLost(f"no subscription in {CONNECT_SECONDS:.0f} s") from None
        if not isinstance(results[_SUBSCRIBE], str):
            raise SubscriptionLost("its subscription has no id")
        self._subscription = results[_SUBSCRIBE]
        return str(results[_CHAIN_ID])

    async def head(self) -> Head:
        """Wait for the next head; other messages are skipped. Raises SubscriptionLost."""
        while True:
            told = (await self._received()).get("params")
            if not isinstance(told, dict) or told.get("subscription") != self._subscription:
                continue
            if (head := head_of(told.get("result"))) is not None:
                return head

    async def _send(self, identity: int, method: str, params: list[str]) -> None:
        body = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}
        with _lost():
            await self._connection.send(msgspec.json.encode(body).decode())

    async def _received(self) -> dict[str, Any]:
        with _lost():
            data = await self._connection.recv(decode=False)
        self._count()
        try:
            message = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            raise SubscriptionLost(f"it sends something that is not JSON{quoted(words_in(bytes(data)))}") from None
        return message if isinstance(message, dict) else {}

    def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self._messages = 0
        self._messages += 1
        if self._messages > MOST_MESSAGES:
            raise SubscriptionLost(f"it sends more than {MOST_MESSAGES} messages in {WINDOW_SECONDS:.0f} s")


@asynccontextmanager
async def head_socket(url: str) -> AsyncIterator[HeadSocket]:
    """Connect, without a proxy and without following redirects. Raises SubscriptionLost."""
    with _lost():
        connection = await _Connect(
            url, proxy=None, compression=None, max_size=MOST_MESSAGE_BYTES, open_timeout=CONNECT_SECONDS,
            ping_interval=PING_SECONDS, ping_timeout=PING_SECONDS, close_timeout=1.0,
            user_agent_header="trace-dagster", logger=_silent,
        )  # fmt: skip
    try:
        yield HeadSocket(connection)
    finally:
        await connection.close()


def _results(message: dict[str, Any]) -> dict[Any, Any]:
    """Return the result of an answer by its call's id; nothing for another message. Raises SubscriptionLost."""
    identity = message.get("id")
    if not isinstance(identity, int):
        return {}
    if message.get("error") is not None:
        code, text = code_and_text(message["error"])
        raise SubscriptionLost(f"it refuses the subscription ({code}){quoted(provider_words(text))}")
    return {identity: message.get("result")}


@contextmanager
def _lost() -> Iterator[None]:
    """Raise SubscriptionLost in place of the library's errors."""
    try:
        yield
    except InvalidStatus as error:
        words = quoted(words_in(bytes(error.response.body or b"")))
        raise SubscriptionLost(f"it refuses the connection (HTTP {error.response.status_code}){words}") from None
    except ConnectionClosed as error:
        frame = error.rcvd or error.sent
        code, words = (frame.code, quoted(provider_words(frame.reason))) if frame else (1006, "")
        raise SubscriptionLost(f"the connection was closed ({code}){words}") from None
    except TimeoutError:
        raise SubscriptionLost(f"cannot connect in {CONNECT_SECONDS:.0f} s") from None
    except (OSError, EOFError, ValueError, WebSocketException) as error:  # their texts may contain the URL
        raise SubscriptionLost(f"cannot connect ({type(error).__name__})") from None


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect: it could lead anywhere."""
        return exc
