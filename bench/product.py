"""The product as a user runs it, measured: a stack, a job applied, everything committed; time and CPU by process."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.lite.processes import STACK_VARIABLE
from trace_dagster.lite.stack import Stack
from trace_dagster.operate import apply_file, watch

DATASETS = ("blocks", "transactions", "logs", "geth_calls")
POOL = "node"
_JOB = """kind: chain_sync
name: {name}
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: {pool}, chunk_size: {chunk}, max_inflight: 16, verify: {verify}}}
streams:
{streams}
"""
_COMMITS = """
select extract(epoch from min(a.started_at)), extract(epoch from max(a.ended_at)), count(*)
from trace.attempts a join trace.tasks t using (task_id) join trace.streams s using (dataset_uuid)
join trace.jobs j using (job_id) where j.name = %s and a.state = 'committed'
"""


@dataclass(frozen=True, slots=True)
class Synced:
    """One job from apply to everything committed. Seconds."""

    seconds: float
    """From apply to everything committed."""
    starting: float
    """Of these, until the first range was claimed."""
    ranges: int
    cpu: dict[str, float]
    """CPU seconds by process: run, engine, dagster, postgres, s3."""

    @property
    def working(self) -> float:
        """From the first claim to the last commit."""
        return self.seconds - self.starting


@contextmanager
def stack(rpc: str, **settings: str) -> Iterator[dict[str, str]]:
    """Postgres, S3 and Dagster in a home of their own; yields what commands need to know of them."""
    with tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o755)
        kept = {name: value for name, value in _outside().items() if not name.startswith("TRACE_")}
        environment = {
            **kept,
            "TRACE_HOME": home,
            "TRACE_DEVCHAIN_BLOCKS": "10",
            f"TRACE_RPC_POOL_{POOL.upper()}_URL": rpc,
            **settings,
        }
        with Stack(Path(home), environment).running(_say) as state:
            yield {**environment, **state.environment(), STACK_VARIABLE: state.stack_id}


def sync(
    name: str,
    environment: Mapping[str, str],
    *,
    blocks: int,
    chunk: int,
    verify: str,
    datasets: Sequence[str] = DATASETS,
) -> Synced:
    """Apply a job over ``[0, blocks)`` and wait for its end. Exits when a range failed."""
    streams = "\n".join(f"  {each}_{name}: {{cryo_dataset_name: {each}}}" for each in datasets)
    text = _JOB.format(name=name, chain=CHAIN_ID, blocks=blocks, chunk=chunk, verify=verify, streams=streams, pool=POOL)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        before = cpu_seconds(environment[STACK_VARIABLE])
        started = time.time()
        apply_file(Path(file.name), environment, lambda _: None)
        if watch(name, environment, _say):
            sys.exit(f"error: {name} did not commit everything")
        after = cpu_seconds(environment[STACK_VARIABLE])
    with psycopg.connect(environment["TRACE_POSTGRES_URL"]) as connection:
        row = connection.execute(_COMMITS, [name]).fetchone()
    assert row is not None
    first, last, ranges = float(row[0]), float(row[1]), int(row[2])
    spent = {part: round(after[part] - before[part], 2) for part in after}
    return Synced(last - started, first - started, ranges, spent)


def cpu_seconds(stack_id: str) -> Counter[str]:
    """CPU seconds so far of a stack, by part. Those of a process that ended count with its parent's part."""
    found: Counter[str] = Counter()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(STACK_VARIABLE) == stack_id:
                found[_part(" ".join(process.cmdline()))] += sum(process.cpu_times()[:4])
    return found


_PARTS = {
    "engine.worker": "engine",
    "postgres": "postgres",
    "weed": "s3",
    "trace_dagster.gateway": "gateway",
    "devchain": "devchain",
    "_daemon": "daemon",
    "webserver": "web server",
}


def _part(command: str) -> str:
    """The code server starts the runs, a run its engine: what ended counts with them."""
    return next((part for mark, part in _PARTS.items() if mark in command), "runs and code server")


def _outside() -> dict[str, str]:
    import os

    return dict(os.environ)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
