"""Runs the proxy: in a thread for tests, in the foreground for the command line.

with chaos_rpc("http://127.0.0.1:8545", faults=["truncate_tail"], rate=0.03, seed=1) as proxy:
    proxy.url, proxy.requests, proxy.injected
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypedDict, Unpack

from trace_dagster.chaos_rpc import wire
from trace_dagster.chaos_rpc.client import ChaosClient
from trace_dagster.chaos_rpc.state import ChaosRpc
from trace_dagster.loopback import bound

__all__ = ["ChaosOptions", "ChaosRpc", "chaos_rpc", "run_foreground"]

BACKLOG = 1024
SUMMARY_SECONDS = 10.0


class ChaosOptions(TypedDict, total=False):
    """Options of a proxy; ``ChaosRpc`` has the defaults."""

    faults: Sequence[str]
    rate: float
    seed: int
    fork_url: str | None
    methods: Sequence[str] | None
    stall_seconds: float
    delay_seconds: float
    head: str | None
    head_blocks: int


@contextmanager
def chaos_rpc(upstream_url: str | None, **options: Unpack[ChaosOptions]) -> Iterator[ChaosRpc]:
    """Run a proxy on a free port in a thread, and close it at the end of the block.

    Without a URL it answers 502 until ``upstream_url`` is set.
    """
    proxy = ChaosRpc(upstream_url, **options)
    listener = _listen(proxy, 0)
    loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def run() -> None:
        async with _serving(proxy, listener):
            started.set()
            await stop.wait()

    def body() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # the end of the task cancels the requests in flight
            runner.run(run())

    thread = threading.Thread(target=body, name="chaos-rpc", daemon=True)
    thread.start()
    try:
        started.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def run_foreground(proxy: ChaosRpc, port: int, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, and print every 10 s what changed. Raises InvalidInput if the port is in use."""
    listener = _listen(proxy, port)
    asyncio.run(_until_stopped(proxy, listener, say))


async def _until_stopped(proxy: ChaosRpc, listener: socket.socket, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _serving(proxy, listener):
        say(
            f"chaos-rpc listens on {proxy.url}; ctrl-c ends it"
        )  # not the node's address, because its URL may contain a key
        said = proxy.injected.total()
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), SUMMARY_SECONDS)
            except TimeoutError:
                if proxy.injected.total() != said:
                    said = proxy.injected.total()
                    say(proxy.summary())
    say(proxy.summary())


def _listen(proxy: ChaosRpc, port: int) -> socket.socket:
    listener = bound(port)
    proxy.port = listener.getsockname()[1]
    return listener


@asynccontextmanager
async def _serving(proxy: ChaosRpc, listener: socket.socket) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            asyncio.CancelledError
        ):  # the proxy ends; Python 3.11 would print an error for each such connection
            await ChaosClient(proxy, reader, writer).serve()

    server = await asyncio.start_server(serve, sock=listener, backlog=BACKLOG, limit=wire.READ_AHEAD_BYTES)
    try:
        yield
    finally:
        server.close()
