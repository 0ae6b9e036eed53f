"""Measures the product as a user runs it: a stack, a job applied, everything committed; time and CPU by process."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import node
from bench.usage import Usage, await_idle
from trace_dagster.cli.commands import apply_file, watch
from trace_dagster.config.settings import Settings, settings_from
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.lite.processes import STACK_VARIABLE
from trace_dagster.lite.stack import Stack

DATASETS = ("blocks", "transactions", "logs", "geth_calls")
POOL = "node"
CLOCK_SECONDS = 0.5
"""Seconds between two samples of the processes: a sample costs about 10 ms of CPU time."""

_JOB = """kind: chain_sync
name: {name}
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: {pool}, chunk_size: {chunk}, max_inflight: 16, verify: {verify},
  engine: {engine}, compact: off}}
streams:
{streams}
"""
_COMMITS = """
select extract(epoch from min(a.started_at)), extract(epoch from max(a.ended_at)), count(*), sum(v.row_count)
from trace.attempts a join trace.dataset_versions v using (task_id, attempt)
join trace.streams s on s.dataset_uuid = v.dataset_uuid join trace.jobs j using (job_id)
where j.name = %s and a.state = 'committed'
"""
_HIDE = "update trace.dataset_versions set visible = false, hidden_at = now() where visible"


@dataclass(frozen=True, slots=True)
class Line:
    """A node with a latency, and the name of its pool."""

    pool: str
    url: str
    latency: float
    """Seconds added to each request."""

    @property
    def name(self) -> str:
        """The name in a table."""
        return f"{self.latency * 1000:.0f} ms"


@contextmanager
def lines(blocks: int, latencies: Sequence[float]) -> Iterator[list[Line]]:
    """Run a node per latency, each with the same chain of ``blocks``."""
    with ExitStack() as nodes:
        yield [
            Line(f"node_{round(each * 1000)}", nodes.enter_context(node.running(blocks, latency=each)), each)
            for each in latencies
        ]


@contextmanager
def place(blocks: int, latencies: Sequence[float]) -> Iterator[tuple[dict[str, str], list[Line]]]:
    """Run a stack with a pool per latency; yield the environment of commands, and the pools."""
    with lines(blocks, latencies) as found, stack_at(found) as environment:
        yield environment, found


@contextmanager
def stack_at(found: Sequence[Line]) -> Iterator[dict[str, str]]:
    """Run a stack with a pool per line; yield the environment of commands."""
    pools = {f"TRACE_RPC_POOL_{line.pool.upper()}_URL": line.url for line in found}
    with stack(found[0].url, **pools) as environment:
        yield environment


@dataclass(frozen=True, slots=True)
class Synced:
    """One job from apply to everything committed."""

    seconds: float
    """Seconds from apply to the last commit."""
    starting: float
    """Seconds from apply to the first claim."""
    ranges: int
    rows: int
    cpu: dict[str, float]
    """CPU seconds by part, see :mod:`bench.usage`."""

    @property
    def working(self) -> float:
        """Seconds from the first claim to the last commit."""
        return self.seconds - self.starting


@contextmanager
def stack(rpc: str, **settings: str) -> Iterator[dict[str, str]]:
    """Run Postgres, S3 and Dagster in a separate home; yield the environment of commands."""
    with tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACE_")}
        environment = {
            **kept,
            "TRACE_HOME": home,
            "TRACE_DEVCHAIN_BLOCKS": "10",
            f"TRACE_RPC_POOL_{POOL.upper()}_URL": rpc,
            **settings,
        }
        with Stack(Settings.read(environment)).running(_say) as state:
            yield {**environment, **state.environment(), STACK_VARIABLE: state.stack_id}


def sync(
    name: str,
    environment: Mapping[str, str],
    *,
    blocks: int,
    chunk: int,
    verify: str,
    datasets: Sequence[str] = DATASETS,
    pool: str = POOL,
    engine: str = "cryo",
) -> Synced:
    """Apply a job over ``[0, blocks)`` and wait for its end. Exits if a range failed.

    Earlier commits do not help it: versions of other jobs over the same chain are hidden, because they would be
    evidence.
    """
    hide(environment)
    await_idle(environment[STACK_VARIABLE])
    with Usage(environment[STACK_VARIABLE], CLOCK_SECONDS) as usage:
        started = time.time()
        apply(name, environment, blocks=blocks, chunk=chunk, verify=verify, datasets=datasets, pool=pool, engine=engine)
        if watch(name, settings_from(environment), _say):
            sys.exit(f"error: {name} did not commit everything")
    with psycopg.connect(environment["TRACE_POSTGRES_URL"]) as connection:
        row = connection.execute(_COMMITS, [name]).fetchone()
    assert row is not None
    first, last, ranges, rows = float(row[0]), float(row[1]), int(row[2]), int(row[3])
    return Synced(last - started, first - started, ranges, rows, usage.cpu())


def apply(
    name: str,
    environment: Mapping[str, str],
    *,
    blocks: int,
    chunk: int,
    verify: str,
    datasets: Sequence[str] = DATASETS,
    pool: str = POOL,
    engine: str = "cryo",
) -> None:
    """Apply a job over ``[0, blocks)`` with a stream ``{dataset}_{name}`` per dataset."""
    streams = "\n".join(f"  {each}_{name}: {{cryo_dataset_name: {each}}}" for each in datasets)
    text = _JOB.format(
        name=name, chain=CHAIN_ID, blocks=blocks, chunk=chunk, verify=verify, streams=streams, pool=pool, engine=engine
    )
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        apply_file(Path(file.name), settings_from(environment), lambda _: None)


def hide(environment: Mapping[str, str]) -> None:
    """Hide committed versions, so that they are not evidence for the next job."""
    with psycopg.connect(environment["TRACE_POSTGRES_URL"]) as connection:
        connection.execute(_HIDE)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
