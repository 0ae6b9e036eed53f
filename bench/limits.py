"""How a rate limit is kept, and what the gateway saves: close to a node and far away, with it and without it.

    .venv/bin/python -m bench.limits [--seconds 30] [--blocks 2000]

Two processes extract ranges at the same time from nodes that answer 429 beyond their limit; the calls that the nodes
answered with 200 are counted. Then one process extracts the same blocks with the gateway and directly, from a node on
this machine and from one at 50 ms. With a limit there is no comparison: without the gateway no process keeps the limit,
and ranges fail when their tries are used up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from bench import node
from bench.memory import Order, course, registry
from bench.table import Compared, in_turn, machine, markdown

LIMIT = 25
"""Calls per second: the limit of public endpoints of Monad."""

PROCESSES = 2
_CHUNK = 100
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Held:
    """The calls that nodes with a limit answered while runs sent as many as they could."""

    limit: int
    """Limit of all nodes together, in calls per second."""
    calls_per_second: float
    refused: int
    """HTTP requests answered with 429."""


@dataclass(frozen=True, slots=True)
class Worth:
    """The same blocks with the gateway and directly."""

    latency: float
    blocks: int
    with_gateway: float
    """Seconds from the first commit to the last."""
    directly: float
    calls: tuple[int, int]
    """JSON-RPC calls that the node answered, with the gateway and directly."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of all measurements."""

    one: Held
    two: Held
    worth: tuple[Worth, ...]


def measure(*, seconds: float, blocks: int, number: int = 0) -> Round:
    """Measure one endpoint, two endpoints, and the gateway's effect over ``blocks``."""
    return Round(
        held(1, seconds, f"one_{number}"),
        held(2, seconds, f"two_{number}"),
        tuple(worth(latency, blocks, number) for latency in (0.0, 0.05)),
    )


def held(endpoints: int, seconds: float, name: str) -> Held:
    """Run PROCESSES runs at the same time through one gateway, with ``endpoints`` nodes that have a limit each."""
    with ExitStack() as stack:
        urls = [stack.enter_context(node.running(1_000_000 // _CHUNK, rps=LIMIT)) for _ in range(endpoints)]
        variables = stack.enter_context(registry(",".join(urls)))
        variables["TRACE_RPC_POOL_NODE_RPS"] = str(LIMIT)
        variables["TRACE_RPC_GATEWAY_URL"] = stack.enter_context(gateway(variables))
        for process in range(PROCESSES):
            stack.enter_context(_bringing(variables, Order(f"{name}_{process}", 10_000, _CHUNK, 4, "structural")))
        while not all(node.stats(url)["calls"].get("eth_getBlockByNumber") for url in urls):
            time.sleep(0.2)
        time.sleep(_SETTLE_SECONDS)
        before, started = [node.stats(url) for url in urls], time.monotonic()
        time.sleep(seconds)
        after, passed = [node.stats(url) for url in urls], time.monotonic() - started
    calls = sum(_calls(found) for found in after) - sum(_calls(found) for found in before)
    refused = sum(found["refused"] for found in after) - sum(found["refused"] for found in before)
    return Held(LIMIT * endpoints, calls / passed, refused)


def worth(latency: float, blocks: int, number: int) -> Worth:
    """Extract the same blocks two times, each time from a separate node and into a separate registry."""

    def seconds(mode: str) -> tuple[float, int]:
        with node.running(blocks + 10, latency=latency) as url, registry(url) as variables:
            variables["TRACE_RPC_GATEWAY"] = mode
            found = course(variables, Order(f"{mode}_{number}", blocks, _CHUNK, 4, "full"))
            return found.commits[-1] - found.commits[0], _calls(node.stats(url))

    ours, directly = in_turn(number, lambda: seconds("always"), lambda: seconds("never"))
    return Worth(latency, blocks, ours[0], directly[0], (ours[1], directly[1]))


def compared(rounds: Sequence[Round]) -> list[Compared]:
    """Return rates relative to their limits, and times with the gateway relative to those without."""
    rows = []
    for what, found in (("one endpoint", [r.one for r in rounds]), ("two endpoints", [r.two for r in rounds])):
        pairs = tuple((each.calls_per_second, float(each.limit)) for each in found)
        refused = ", ".join(str(each.refused) for each in found)
        note = f"{PROCESSES} processes; requests answered with 429: {refused}"
        rows.append(Compared(f"calls under a limit, {what}", "calls/s", pairs, note))
    for place, last in enumerate(rounds[-1].worth):
        what = f"gateway / directly, {last.latency * 1000:.0f} ms"
        pairs = tuple((each.worth[place].with_gateway, each.worth[place].directly) for each in rounds)
        note = f"{last.blocks:,} blocks x 4, verify full; calls {last.calls[0]:,} / {last.calls[1]:,}"
        rows.append(Compared(what, "s", pairs, note))
    return rows


@contextmanager
def gateway(variables: Mapping[str, str]) -> Iterator[str]:
    """Run a gateway in a separate process; yield its URL."""
    command = [sys.executable, "-m", "trace_dagster.gateway", "--owned"]
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.communicate()


@contextmanager
def _bringing(variables: Mapping[str, str], order: Order) -> Iterator[None]:
    """Run a process that extracts ranges until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.memory", "--child"],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(order)))
    process.stdin.close()
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _calls(stats: Mapping[str, Mapping[str, int]]) -> int:
    return sum(stats["calls"].values())


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="how long rates are counted")
    parser.add_argument("--blocks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    rounds = [
        measure(seconds=options.seconds, blocks=options.blocks, number=number) for number in range(options.rounds)
    ]
    print(f"{machine()}\n\n{markdown(compared(rounds))}")


if __name__ == "__main__":
    main()
