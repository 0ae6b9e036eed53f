"""The time from a query's text to its run, in a registry of many ranges.

    .venv/bin/python -m bench.opening [--ranges 100000] [--streams 4] [--rounds 20]

The process runs and its children wait for a query, as in a service. Opening ends when the child calls DuckDB's
``execute``. The registry is filled through the real schema; of its objects only those exist that a view is created
over.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.table import machine
from bench.verification import services
from tests.support.filled import CHUNK, fill
from trace_dagster.config.settings import settings_from
from trace_dagster.errors import TraceError
from trace_dagster.query.protocol import Relation
from trace_dagster.query.relations import Lake
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.conditions import Reads
from trace_dagster.runtime import Runtime
from trace_dagster.store.causes import PreconditionFailed
from trace_dagster.store.objects import ObjectStore


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranges", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as folder,
        services(Path(folder)) as variables,
    ):
        runtime = Runtime(settings_from(variables))
        found = openings(runtime, ranges=options.ranges, streams=options.streams, rounds=options.rounds)
        runtime.close()
    print(machine(), *found, sep="\n")


def openings(runtime: Runtime, *, ranges: int, streams: int, rounds: int) -> list[str]:
    """Fill the registry; return a line about windows of one relation, one block, and all of it."""
    chain_id = fill(runtime.database, ranges, streams=streams)[0].chain_id
    width = max(1, ranges * CHUNK // 100)
    lines = []
    with QueryRunner(ahead=2) as runner:
        for name, conditions in (
            ("1% of one relation", f"block_number between {{first}} and {{first}} + {width - 1}"),
            ("one block", "block_number = {first}"),
            ("all of one relation", "true"),
        ):
            seconds, files = [], 0
            for number in range(rounds):
                where = conditions.format(first=(number * 7919 % 99) * width)
                sql = f"select count(*) from chain_{chain_id}.logs where {where}"
                taken, files = opened(runtime, runner, sql)
                seconds.append(taken * 1000)
            lines.append(
                f"{name}: {files:,} files of {ranges:,} x {streams}; opened in {statistics.median(seconds):.0f} ms"
                f" (median of {len(seconds)}, {min(seconds):.0f} - {max(seconds):.0f})"
            )
    return lines


def opened(runtime: Runtime, runner: QueryRunner, sql: str) -> tuple[float, int]:
    """Return the seconds from the text to ``execute``, and the number of files."""
    catalog, store = runtime.catalog, runtime.store
    ended: list[float] = []
    files: list[int] = []
    wait_ready(runner)
    started = time.perf_counter()
    lake = Lake(catalog.datasets(), store.access)

    def resolve(reads: Mapping[str, Reads]) -> list[Relation]:
        found = catalog.open(lake.reads(reads))
        paused = time.perf_counter()
        for each in found.files.values():
            put_first(store, each.names.partition("\n")[0])
            files.append(each.names.count("\n") + 1)
        ended.append(paused - time.perf_counter())  # what the bench did itself is taken off
        return lake.relations(reads, found)

    with suppress(TraceError):  # the other objects are missing
        runner.query(sql, lake.shapes(), store.access, 10, resolve, None, lambda: ended.append(time.perf_counter()))
    taken_off, at = ended
    return at - started + taken_off, files[0]


def put_first(store: ObjectStore, key: str) -> None:
    """Write an object for a view to be created over."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"block_number": pa.array([0], pa.int64())}), sink)
    with suppress(PreconditionFailed):  # it is there already
        store.put_if_absent(key, sink.getvalue())


def wait_ready(runner: QueryRunner) -> None:
    """Wait until a child can take a query: the goal is measured with a warm one."""
    waiting = runner.pool._waiting[0]._wire
    if not waiting.poll(60):
        raise AssertionError("no child is ready")


if __name__ == "__main__":
    main()
