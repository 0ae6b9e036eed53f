"""The memory of a run, by the size of its ranges and over many of them.

    .venv/bin/python -m bench.memory [--blocks 50000] [--small 500] [--ranges 2000] [--verify full]

Every range goes through claim, Cryo, proof, Parquet on a real S3 server and the fenced commit in a real Postgres, in a
fresh process, without Dagster. That process stands for the run; its children are the engine's workers and, if the node
is far away, the gateway. The same blocks are extracted as one range per dataset and as small ranges one after the
other; then many ranges of a few blocks, as many at the same time as a run works on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import psutil

from bench.product import DATASETS, Line, lines
from bench.table import Compared, grouped, machine, markdown
from bench.usage import GATEWAY, part_of
from bench.verification import applied, bring_in, hide, services
from trace_dagster.blocks import BlockRange
from trace_dagster.config.settings import settings_from
from trace_dagster.dagster_instance import memory
from trace_dagster.ingest.ingester import StreamSpec
from trace_dagster.runtime import Runtime

SMALL, SIZE = 500, 10
"""Blocks of a small range, and of each of many ranges."""

MAX_INFLIGHT = 8
"""As in the job of :mod:`bench.verification`."""

_LOOK_SECONDS = 0.1
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """The work of a child: every dataset of ``[0, blocks)`` in ranges of ``chunk``, ``at_once`` at the same time.

    The datasets of a range come before the next range, as in a run.
    """

    name: str
    blocks: int
    chunk: int
    at_once: int
    verify: str


@dataclass(frozen=True, slots=True)
class Look:
    """Resident bytes at one time, in seconds since the epoch."""

    at: float
    run: int
    engine: int
    """Of all workers together."""
    gateway: int
    """0 if none runs, as with a near node."""


@dataclass(frozen=True, slots=True)
class Course:
    """One child from its first range to its last."""

    order: Order
    commits: tuple[float, ...]
    """Time of each range's commit, in seconds since the epoch."""
    looks: tuple[Look, ...]

    @property
    def whole(self) -> tuple[Look, ...]:
        """All samples."""
        return self.looks

    @property
    def first(self) -> tuple[Look, ...]:
        """Samples during the commits of the first tenth of the ranges."""
        return self._between(self.commits[0], self.commits[len(self.commits) // 10])

    @property
    def last(self) -> tuple[Look, ...]:
        """Samples during the commits of the last tenth."""
        return self._between(self.commits[-1 - len(self.commits) // 10], self.commits[-1])

    def _between(self, start: float, end: float) -> tuple[Look, ...]:
        """Return the samples between two times, or the last one before the end if there is none."""
        until = tuple(look for look in self.looks if look.at <= end)
        return tuple(look for look in until if look.at >= start) or until[-1:]


@dataclass(frozen=True, slots=True)
class Memory:
    """One round at one node."""

    line: Line
    small: Course
    large: Course
    along: Course


@contextmanager
def registry(url: str) -> Iterator[dict[str, str]]:
    """Run Postgres and S3; yield the environment of a child, with the node at ``url``."""
    with (
        tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as folder,
        services(Path(folder)) as variables,
    ):
        yield {**variables, "TRACE_RPC_POOL_NODE_URL": url}


def measure(
    variables: Mapping[str, str],
    line: Line,
    *,
    blocks: int,
    small: int,
    ranges: int,
    size: int,
    verify: str,
    number: int = 0,
) -> Memory:
    """Extract ``blocks`` as ranges of ``small`` and as one range; then ``ranges`` ranges of ``size``."""
    per_dataset = -(-ranges // len(DATASETS))
    variables = {**variables, "TRACE_RPC_POOL_NODE_URL": line.url}
    return Memory(
        line,
        small=course(variables, Order(f"small_{line.pool}_{number}", blocks, small, 1, verify)),
        large=course(variables, Order(f"large_{line.pool}_{number}", blocks, blocks, 1, verify)),
        along=course(variables, Order(f"along_{line.pool}_{number}", per_dataset * size, size, MAX_INFLIGHT, verify)),
    )


def compared(rounds: Sequence[Memory]) -> list[Compared]:
    """Return for each line: peaks of large relative to small ranges, and of the last tenth relative to the first."""
    return [row for mine in grouped(rounds, lambda each: each.line) for row in _at_one_node(mine)]


def _at_one_node(rounds: Sequence[Memory]) -> list[Compared]:
    one = rounds[-1]
    what = f"memory, {one.line.name}, ranges of {one.large.order.chunk:,} blocks beside {one.small.order.chunk:,}"
    along = f"memory, {one.line.name}, the last tenth of {len(one.along.commits):,} ranges beside the first"
    note = f"{one.large.order.verify}, {one.large.order.blocks:,} blocks x {len(DATASETS)}, a range at a time"
    at_once = f"ranges of {one.along.order.chunk} blocks, {MAX_INFLIGHT} at a time"
    large = [(each.large.whole, each.small.whole) for each in rounds]
    late = [(each.along.last, each.along.first) for each in rounds]
    rows = [
        _peaks(f"{shown}: {name}", pairs, part, noted)
        for shown, pairs, noted in ((what, large, note), (along, late, at_once))
        for name, part in _PARTS.items()
    ]
    return [row for row in rows if all(other for _, other in row.pairs)]


def _peaks(
    what: str, pairs: Sequence[tuple[Sequence[Look], Sequence[Look]]], part: Callable[[Look], int], note: str
) -> Compared:
    peaks = tuple((max(map(part, one)) / _MIB, max(map(part, other)) / _MIB) for one, other in pairs)
    return Compared(what, "MiB, peak", peaks, note)


_PARTS: dict[str, Callable[[Look], int]] = {
    "run": lambda look: look.run,
    "engine workers": lambda look: look.engine,
    "gateway, with the answers it keeps": lambda look: look.gateway,
}


def course(variables: Mapping[str, str], order: Order) -> Course:
    """Run a child and sample its memory and that of its children until it ends."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.memory", "--child"],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(asdict(order)))
    child.stdin.close()
    looks: list[Look] = []
    watch = threading.Thread(target=_watch, args=(psutil.Process(child.pid), looks), daemon=True)
    watch.start()
    commits = tuple(sorted(float(line) for line in child.stdout))
    if child.wait():
        raise RuntimeError(f"{order.name} was not committed")
    watch.join()
    return Course(order, commits, tuple(looks))


def _watch(run: psutil.Process, looks: list[Look]) -> None:
    with suppress(psutil.NoSuchProcess):  # the child has ended
        while run.status() != psutil.STATUS_ZOMBIE:
            sizes = {True: 0, False: 0}
            for child in run.children(recursive=True):
                sizes[_is_gateway(child)] += _resident(child)
            looks.append(Look(time.time(), _resident(run), engine=sizes[False], gateway=sizes[True]))
            time.sleep(_LOOK_SECONDS)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # the process has ended
        return 0


def _is_gateway(process: psutil.Process) -> bool:
    try:
        return part_of(" ".join(process.cmdline())) == GATEWAY
    except psutil.Error:  # the process has ended
        return False


def _bring_all_in(order: Order) -> None:
    """Extract every range in the child, and print when each was committed."""
    memory.tune_memory()
    runtime = Runtime(settings_from(os.environ))

    def bring(each: tuple[BlockRange, StreamSpec]) -> float:
        span, spec = each
        bring_in(runtime, spec, span)
        return time.time()

    try:
        hide(runtime)
        specs = applied(runtime, order.name, order.verify, order.blocks, order.chunk).values()
        spans = BlockRange(0, order.blocks).split(order.chunk)
        with ThreadPoolExecutor(order.at_once) as threads:
            for committed in threads.map(bring, product(spans, specs)):
                print(committed, flush=True)
    finally:
        runtime.close()


def main() -> None:
    """Measure and print the table; in a child, extract what stdin describes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=50_000)
    parser.add_argument("--small", type=int, default=SMALL, help="blocks of a small range")
    parser.add_argument("--ranges", type=int, default=2000)
    parser.add_argument("--size", type=int, default=SIZE, help="blocks of each of the many ranges")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--verify", default="full", choices=["off", "structural", "full"])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0], help="seconds added to each request")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _bring_all_in(Order(**json.load(sys.stdin)))
        return
    sizes = {name: getattr(options, name) for name in ("blocks", "small", "ranges", "size", "verify")}
    blocks = max(options.blocks, options.ranges * options.size)
    with lines(blocks, options.latency) as found, registry(found[0].url) as variables:
        numbered = product(range(options.rounds), found)
        rounds = [measure(variables, line, **sizes, number=number) for number, line in numbered]
    print(f"{machine()}\n\n{markdown(compared(rounds))}")


if __name__ == "__main__":
    main()
