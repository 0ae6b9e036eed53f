"""From the node that shows a new block to a snapshot that contains it, on the real stack.

    .venv/bin/python -m bench.tip [--minutes 10] [--node devchain anvil] [--cases follower polled backfill sensor]

The chain makes a block of 20 transactions and 40 logs every 300 ms. A listener on the node's WebSocket notes when each
block is shown. Meanwhile a reader opens a snapshot of three streams every few milliseconds and notes the newest block
that all of them contain. Blocks are stored only if they are proven, so the reader sees proven blocks only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import threading
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from bench.product import POOL, stack
from bench.table import machine
from bench.tip_nodes import NODES, TipNode
from trace_dagster.cli.commands import apply_file
from trace_dagster.config.settings import settings_from
from trace_dagster.lite.processes import STACK_VARIABLE

BLOCK_SECONDS = 0.3
TRANSACTIONS, LOGS = 20, 40
KEYS = ("blocks", "transactions", "logs")
READ_SECONDS = 0.005
"""Pause between two snapshots of the reader."""
_WARM_SECONDS = 10.0
_STILL_SECONDS = 60.0
_HISTORY_SECONDS = 300.0
_OPEN_TASKS = """
select count(*) > 0 and bool_and(state = 'committed') from trace.tasks t join trace.datasets d using (dataset_uuid)
where d.dataset_key = 'logs'
"""

_JOB = """kind: chain_sync
name: tip
chain_id: {chain}
mode: {{kind: follow_head, from_block: latest-2000, tail_lag: 0}}
defaults: {{rpc_pool: {pool}, chunk_size: 500}}
streams:
  blocks: {{cryo_dataset_name: blocks}}
  transactions: {{cryo_dataset_name: transactions}}
  logs: {{cryo_dataset_name: logs}}
"""
_HISTORY = """kind: chain_sync
name: history_{number}
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: {pool}, chunk_size: 50, max_inflight: 16}}
streams:
  blocks_{number}: {{cryo_dataset_name: blocks}}
  transactions_{number}: {{cryo_dataset_name: transactions}}
  logs_{number}: {{cryo_dataset_name: logs}}
  calls_{number}: {{cryo_dataset_name: geth_calls}}
"""
_NEWEST = """
select min(newest) from (
    select coalesce(upper(h.blocks) - 1, -1) as newest from trace.datasets d
    left join hot.streams h on h.dataset_uuid = d.dataset_uuid where d.dataset_key = any(%s)) each
"""


@dataclass
class Shown:
    """When the node showed each block first, by the clock of this machine."""

    at: dict[int, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def listening(self, url: str) -> Iterator[Shown]:
        """Listen to new heads until the block is left."""
        thread = threading.Thread(target=self._listen, args=(url,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join(5)

    def _listen(self, url: str) -> None:
        with connect(url, proxy=None) as socket:
            socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
            while not self._over.is_set():
                try:
                    message = json.loads(socket.recv(timeout=1))
                except TimeoutError:
                    continue
                except WebSocketException:
                    return
                if head := (message.get("params") or {}).get("result"):
                    self.at.setdefault(int(head["number"], 16), time.time())


@dataclass
class Reader:
    """Opens snapshots in a loop: (time at which it was opened, newest block that all streams contain)."""

    url: str
    seen: list[tuple[float, int]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Read until the block is left."""
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join(5)

    def _read(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._over.wait(READ_SECONDS):
                opened = time.time()
                row = connection.execute(_NEWEST, [list(KEYS)]).fetchone()
                if row and row[0] is not None and (not self.seen or row[0] > self.seen[-1][1]):
                    self.seen.append((opened, int(row[0])))

    def first_with(self, block: int) -> float | None:
        """Return when the first snapshot was opened that contains a block."""
        at = bisect_left(self.seen, block, key=lambda each: each[1])
        return self.seen[at][0] if at < len(self.seen) else None


@dataclass(frozen=True)
class Measured:
    """One case at one node."""

    node: str
    case: str
    seconds: list[float]
    """From shown to contained, by block."""
    missed: int
    """Blocks that were shown and in no snapshot at the end."""
    core: Mapping[str, float]
    """Part of a core that a process took, by its name."""
    calls: float
    """JSON-RPC calls of the follower by block, those about heads included."""

    def row(self) -> str:
        """Return a line of the table: times in milliseconds."""
        cuts = statistics.quantiles(self.seconds, n=100) if len(self.seconds) > 1 else self.seconds * 99
        times = " | ".join(f"{cuts[each - 1] * 1000:,.0f}" for each in (50, 95, 99))
        core = ", ".join(f"{name} {share:.1%}" for name, share in self.core.items())
        most = f"{max(self.seconds) * 1000:,.0f}"
        counts = f"{most} | {self.missed} | {core} | {self.calls:.2f}"
        return f"| {self.node} | {self.case} | {len(self.seconds)} | {times} | {counts} |"


HEAD = (
    "| node | case | blocks | p50 ms | p95 ms | p99 ms | most | missed | share of a core | calls by block |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|---|--:|"
)


MARKS = {"follower": "cli.main follow", "gateway": "trace_dagster.gateway"}
"""Command lines of the processes whose CPU time is shown."""


class Cpu:
    """CPU time of the stack's follower and gateway."""

    def __init__(self, stack_id: str) -> None:
        self._processes = {name: process_of(stack_id, mark) for name, mark in MARKS.items()}
        self._before = self._times()
        self._started = time.time()

    def shares(self) -> dict[str, float]:
        """Return the part of a core that each took since the start."""
        passed = time.time() - self._started
        return {name: (spent - self._before[name]) / passed for name, spent in self._times().items()}

    def _times(self) -> dict[str, float]:
        return {name: sum(each.cpu_times()[:2]) for name, each in self._processes.items() if each is not None}


def process_of(stack_id: str, mark: str) -> psutil.Process | None:
    """Return the stack's process with a mark in its command line."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(STACK_VARIABLE) == stack_id and mark in " ".join(process.cmdline()):
                return process
        except psutil.Error:
            continue
    return None


def measure(
    case: str, node: TipNode, environment: Mapping[str, str], minutes: float, while_running: Callable[[], Any]
) -> Measured:
    """Measure one case: ``while_running`` starts what belongs to it and is called before the first block counts."""
    reader = Reader(environment["TRACE_POSTGRES_URL"])
    with Shown().listening(node.ws_url) as shown, reader.reading():
        while_running()
        time.sleep(_WARM_SECONDS)
        first = max(shown.at, default=0) + 1
        cpu, calls = Cpu(environment[STACK_VARIABLE]), tip_calls(environment)
        time.sleep(minutes * 60)
        last, shares, made = max(shown.at), cpu.shares(), tip_calls(environment) - calls
        await_block(reader, last)
    times = {block: reader.first_with(block) for block in range(first, last + 1) if block in shown.at}
    seconds = [found - shown.at[block] for block, found in times.items() if found is not None]
    return Measured(node.name, case, seconds, len(times) - len(seconds), shares, made / max(1, last - first + 1))


def tip_calls(environment: Mapping[str, str]) -> int:
    """Return the calls about the newest blocks that the stack's gateway was asked."""
    with urllib.request.urlopen(f"{environment['TRACE_RPC_GATEWAY_URL']}/status", timeout=10) as answer:
        return sum(int(each["tip_calls"]) for each in json.load(answer)["endpoints"].values())


def await_block(reader: Reader, block: int) -> None:
    """Wait until a snapshot contains a block, but not for ever."""
    deadline = time.time() + _STILL_SECONDS
    while reader.first_with(block) is None and time.time() < deadline:
        time.sleep(0.1)


def newest_after_apply(node: TipNode, environment: Mapping[str, str]) -> float:
    """Apply the job; return the seconds from the start of ``apply`` to a snapshot with a block shown after it."""
    reader = Reader(environment["TRACE_POSTGRES_URL"])
    with Shown().listening(node.ws_url) as shown, reader.reading():
        started = time.time()
        apply(_JOB.format(chain=node.chain_id, pool=POOL), environment)
        while True:
            found = [at for block, at in list(shown.at.items()) if at >= started and reader.first_with(block)]
            if found:
                return time.time() - started
            if time.time() - started > _STILL_SECONDS:
                return float("inf")
            time.sleep(0.02)


def await_history(environment: Mapping[str, str]) -> None:
    """Wait until the job has committed its history, so that a case without a backfill has none."""
    deadline = time.time() + _HISTORY_SECONDS
    with psycopg.connect(environment["TRACE_POSTGRES_URL"], autocommit=True) as connection:
        while time.time() < deadline:
            row = connection.execute(_OPEN_TASKS).fetchone()
            if row == (True,):
                return
            time.sleep(0.5)
    raise RuntimeError("the job's history is not committed in time")


def apply(text: str, environment: Mapping[str, str]) -> None:
    """Apply a chain_sync text."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        apply_file(Path(file.name), settings_from(environment), lambda _: None)


def cases_at(node: TipNode, wanted: Sequence[str], minutes: float) -> Iterator[str]:
    """Yield the lines of one node's table."""
    for subscribes in sorted({case != "polled" for case in wanted}, reverse=True):
        extra = {f"TRACE_RPC_POOL_{POOL.upper()}_WS_URL": node.ws_url} if subscribes else {}
        mine = [case for case in wanted if (case != "polled") == subscribes]
        with stack(node.url, **extra) as environment:
            yield f"{node.name}: newest block queryable {newest_after_apply(node, environment):.1f} s after apply"
            await_history(environment)
            for number, case in enumerate(mine):
                with ExitStack() as during:
                    start = _start(case, number, node, environment, during)
                    yield measure(case, node, environment, minutes, start).row()


def _start(
    case: str, number: int, node: TipNode, environment: Mapping[str, str], during: ExitStack
) -> Callable[[], Any]:
    """Return what starts a case."""
    if case == "backfill":
        history = _HISTORY.format(number=number, chain=node.chain_id, pool=POOL, blocks=node.history)
        return lambda: apply(history, environment)
    if case == "sensor":
        return lambda: during.enter_context(stopped(environment[STACK_VARIABLE]))
    return lambda: None


@contextmanager
def stopped(stack_id: str) -> Iterator[None]:
    """Stop the follower inside the block, so that only the sensor follows."""
    process = process_of(stack_id, MARKS["follower"])
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--node", nargs="+", choices=sorted(NODES), default=sorted(NODES))
    names = ("follower", "polled", "backfill", "sensor")
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    print(machine(), HEAD, sep="\n\n", flush=True)
    for name in options.node:
        with NODES[name](BLOCK_SECONDS, TRANSACTIONS, LOGS) as node:
            for line in cases_at(node, options.cases, options.minutes):
                print(line, flush=True)


if __name__ == "__main__":
    main()
