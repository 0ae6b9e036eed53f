"""``python -m trace_dagster.gateway``: serve the environment's RPC pools until SIGTERM or SIGINT.

The process listens on loopback unless ``--host`` names another address, and prints one line of JSON to stdout,
``{"url": "http://127.0.0.1:PORT/TOKEN"}``. The token is TRACE_GATEWAY_TOKEN, or a random one if that is not set. With
TRACE_GATEWAY_TOKEN the line ends at the port, because the output of a service is a log; with ``--owned`` it does not.
The endpoints' URLs come from the environment and are sent only to the endpoints.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import click
import uvloop

from trace_dagster.config.process import start_process
from trace_dagster.errors import InvalidInput
from trace_dagster.gateway.budget_shares import ASKED_SECONDS, BudgetShares
from trace_dagster.gateway.gateway import Gateway
from trace_dagster.gateway.server import BACKLOG, ClientConnection
from trace_dagster.loopback import HOST, bound
from trace_dagster.messages.logs import component_log
from trace_dagster.messages.redaction import redact

_log = component_log("gateway")


@click.command()
@click.option("--host", default=HOST, show_default=True, help="The IPv4 address to listen on; 0.0.0.0 is every one.")
@click.option("--port", default=0, show_default=True, help="0 takes a free one.")
@click.option("--owned", is_flag=True, help="End when stdin closes: the gateway of the process that started it.")
def main(host: str, port: int, owned: bool) -> None:
    """Serve the RPC pools of the environment: shared rate limits, shared fetches, retries."""
    try:
        settings = start_process(os.environ, with_stack=False)
        given = settings.gateway.token
        token = given.get_secret_value() if given else secrets.token_urlsafe(24)
        gateway = Gateway(settings.rpc, token, kept_bytes=settings.gateway.cache_bytes)
        listener = bound(port, host)
        dsn = settings.registry.postgres_url.get_secret_value() if settings.registry.postgres_url else ""
    except InvalidInput as error:
        raise click.ClickException(str(error)) from None
    listener.listen(BACKLOG)
    address = f"http://{host}:{listener.getsockname()[1]}"
    url = f"{address}/{token}" if owned or given is None else address
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(gateway, listener, url, dsn, owned=owned))


async def _serve(gateway: Gateway, listener: socket.socket, url: str, dsn: str, *, owned: bool) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_say_without_urls)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if owned:
        threading.Thread(target=_when_stdin_closes, args=(loop, stop), daemon=True).start()
    shares = _shares(gateway, dsn, loop)
    server = await loop.create_server(lambda: ClientConnection(gateway.answer), sock=listener, backlog=BACKLOG)
    click.echo(json.dumps({"url": url}))
    _log.event("started", port=listener.getsockname()[1], endpoints=len(gateway.clients), owned=owned)
    await stop.wait()
    _log.event("stopped")
    server.close()
    await gateway.close()
    if shares is not None:
        await asyncio.to_thread(shares.close)


def _shares(gateway: Gateway, dsn: str, loop: asyncio.AbstractEventLoop) -> BudgetShares | None:
    """Return the exchange of rate limits with other gateways, or None if no registry is configured."""
    if not dsn:
        return None

    def asked() -> list[str]:
        since = time.monotonic() - ASKED_SECONDS
        return [client.fingerprint for client in gateway.clients if client.asked_at >= since]

    def shared(gateways: Mapping[str, int]) -> None:
        with suppress(RuntimeError):  # the event loop may have ended in the meantime
            loop.call_soon_threadsafe(gateway.share, gateways)

    shares = BudgetShares(dsn, asked, shared)
    shares.start()
    return shares


def _when_stdin_closes(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)


def _say_without_urls(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log only the type of an error in the event loop, because its text may contain a URL."""
    error = context.get("exception")
    click.echo(redact(f"gateway: {context.get('message')} {type(error).__name__}"), err=True)


if __name__ == "__main__":
    main()
