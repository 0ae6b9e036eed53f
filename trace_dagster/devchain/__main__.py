"""``python -m trace_dagster.devchain``: serve a devchain on loopback until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import socket
import time

import click
import uvicorn

from trace_dagster.devchain.chain import BusyBlocks, DevChain
from trace_dagster.devchain.constants import FINAL_BEHIND
from trace_dagster.devchain.server import application, grow

HOST = "127.0.0.1"
BACKLOG = 2048


@click.command()
@click.option("--port", default=8545, show_default=True, help="0 takes a free one.")
@click.option("--blocks", default=4100, show_default=True, help="Blocks the chain starts with.")
@click.option("--seed", default=7, show_default=True, help="The same seed gives the same chain, hash for hash.")
@click.option("--block-interval-seconds", default=0.0, show_default=True, help="0: the chain does not grow.")
@click.option(
    "--busy",
    nargs=2,
    type=click.IntRange(1, 10_000),
    metavar="TRANSACTIONS LOGS",
    help="Exactly so many transactions and logs in each block that is mined after the start.",
)
@click.option(
    "--final-behind", default=FINAL_BEHIND, show_default=True, help="Blocks from the newest to the final one."
)
@click.option("--allow-reorgs", is_flag=True, help="Serve dev_mine [blocks] and dev_reorg [depth, blocks].")
def main(
    port: int,
    blocks: int,
    seed: int,
    block_interval_seconds: float,
    busy: tuple[int, int] | None,
    final_behind: int,
    *,
    allow_reorgs: bool,
) -> None:
    """Serve a seeded EVM chain like Monad (chain id 20143) over JSON-RPC, HTTP and WebSocket, on loopback.

    Blocks that a growing chain mines after the start have the real time.
    """
    # asyncio turns Nagle's delay off only if the protocol is IPPROTO_TCP; else each answer waits 40 ms (measured)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        raise click.ClickException(f"port {port} is taken: end what uses it, or take another --port") from None
    chain = DevChain(seed, blocks)
    chain.final_behind = final_behind
    chain.busy = BusyBlocks(*busy) if busy else None
    chain.clock = time.time if block_interval_seconds else None
    listener.listen(BACKLOG)
    asyncio.run(_serve(chain, listener, block_interval_seconds, allow_reorgs=allow_reorgs))


async def _serve(chain: DevChain, listener: socket.socket, interval_seconds: float, *, allow_reorgs: bool) -> None:
    app = application(chain, allow_reorgs=allow_reorgs)
    config = uvicorn.Config(app, log_level="warning", access_log=False, backlog=BACKLOG)
    server = uvicorn.Server(config)
    growing = asyncio.create_task(grow(chain, interval_seconds)) if interval_seconds else None
    click.echo(f"devchain ready port={listener.getsockname()[1]}")
    await server.serve(sockets=[listener])
    if growing is not None:
        growing.cancel()


if __name__ == "__main__":
    main()
