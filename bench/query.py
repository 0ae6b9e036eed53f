"""The query service beside bare DuckDB over the same files, and what many clients at once get.

    .venv/bin/python -m bench.query [--ranges 1000] [--rows 10000] [--rounds 15] [--seconds 120] [--clients 64]

A registry and an S3 server hold made-up logs, committed range by range; `trace-lite serve` answers over them.

* Latency: one client asks the service by HTTP for JSON. Bare DuckDB gets the list of the files that the service opens,
  on a fresh connection of a running process with httpfs loaded, with the same threads and memory; opening the files is
  in both times. In turn, the same queries.
* Stream: all rows as Arrow; the time to the first rows and to the last, and the memory of the service and its children.
* Many clients: all of them ask without a pause; every answer is counted by its status.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa
import urllib3

from bench.made_lake import made
from bench.table import Compared, in_turn, machine, markdown
from bench.verification import services
from trace_dagster.config.settings import settings_from
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.query.protocol import QueryLimits
from trace_dagster.query.session import QuerySession
from trace_dagster.registry.catalog import EVERYTHING
from trace_dagster.registry.grants import ALL
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.tokens import Tokens
from trace_dagster.runtime import Runtime

CHUNK = 1000
RUNNING, WAITING = 4, 32
WATCH_SECONDS = 0.1
MOST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: its SQL over ``logs``, and the share of the ranges that it needs."""

    what: str
    sql: str
    ranges: slice


def questions(ranges: int) -> list[Asked]:
    """Return questions about one block, some ranges, and all of them."""
    few = max(1, ranges // 100)
    by_address = "select address, count(*) as logs from logs where {} group by all order by logs desc, address limit 20"
    within = f"block_number between {CHUNK} and {CHUNK * (1 + few) - 1}"
    return [
        Asked("the logs of one block", f"select * from logs where block_number = {CHUNK * 2 + 7}", slice(2, 3)),
        Asked(f"logs by address, {few} ranges", by_address.format(within), slice(1, 1 + few)),
        Asked(f"rows of {ranges:,} ranges", "select count(*) from logs", slice(0, ranges)),
        Asked(f"logs by topic, {ranges:,} ranges", "select topic0, count(*) from logs group by all", slice(0, ranges)),
    ]


@dataclass
class Service:
    """A running query service and its client."""

    process: psutil.Process
    url: str
    token: str
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=128, retries=False))

    def ask(self, sql: str, form: str = "json", *, preload: bool = True) -> urllib3.BaseHTTPResponse:
        """Send a query."""
        return self.http.request(
            "POST",
            f"{self.url}/v1/query",
            body=json.dumps({"sql": sql, "format": form, **({"limit": 10_000} if form == "json" else {})}),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            preload_content=preload,
            timeout=MOST_SECONDS,
        )

    def memory(self) -> tuple[float, float]:
        """Return MiB of the service and of all of its children, each page once (PSS)."""
        own = _pss(self.process)
        return own, sum(map(_pss, self.process.children(recursive=True)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranges", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000, help="of each range")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as folder,
        services(Path(folder)) as variables,
    ):
        runtime = Runtime(settings_from(variables))
        stream = made(runtime.database, runtime.store, "logs", options.ranges, CHUNK, options.rows)
        token = Tokens(runtime.database).new("bench", ALL, expires_in=timedelta(days=1))
        with serving(variables, token, Path(folder)) as service:
            print(machine())
            print(markdown([*latencies(service, runtime, stream, options.ranges, options.rounds)]))
            print(*streamed(service, runtime, stream), sep="\n")
            print(*many_clients(service, options.ranges, options.clients, options.seconds), sep="\n")
        runtime.close()


@contextmanager
def serving(variables: dict[str, str], token: str, folder: Path) -> Iterator[Service]:
    """Run `trace-lite serve` until the block ends."""
    port = Ports({}).take()
    places = {"TRACE_QUERY_RUNNING": str(RUNNING), "TRACE_QUERY_WAITING": str(WAITING)}
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trace_dagster.cli.main", "serve", "--port", str(port)],
            env={**os.environ, **variables, **places},
            stdout=log,
            stderr=log,
        )
    try:
        service = Service(psutil.Process(process.pid), f"http://{HOST}:{port}", token)
        _await(service)
        yield service
    finally:
        process.terminate()
        process.wait(30)


def latencies(service: Service, runtime: Runtime, stream: StreamRow, ranges: int, rounds: int) -> Iterator[Compared]:
    """Yield the seconds of each question, by the service and by bare DuckDB."""
    access = runtime.settings.s3_for_queries
    files = [access.uri(each.key) for each in runtime.catalog.files(stream.dataset_uuid, EVERYTHING)]
    for asked in questions(ranges):
        pairs = []
        for number in range(rounds + 1):
            time.sleep(0.3)  # the next child gets ready: the goal is about a service at rest
            pair = in_turn(
                number,
                lambda asked=asked: _seconds_of(service, asked.sql),  # type: ignore[misc]
                lambda asked=asked: _bare(asked.sql, files[asked.ranges], runtime),  # type: ignore[misc]
            )
            if number:  # the first round warms the S3 server's caches
                pairs.append((pair[0] * 1000, pair[1] * 1000))
        most = statistics.median(1.15 * other + 60 for _, other in pairs)
        ours = statistics.median(own for own, _ in pairs)
        yield Compared(asked.what, "ms", tuple(pairs), f"goal {most:,.0f} ms: {'met' if ours <= most else 'MISSED'}")


def _seconds_of(service: Service, sql: str) -> float:
    started = time.perf_counter()
    answer = service.ask(sql)
    taken = time.perf_counter() - started
    if answer.status != 200:
        raise AssertionError(answer.data[:500])
    return taken


def _bare(sql: str, files: list[str], runtime: Runtime) -> float:
    """Return the seconds of bare DuckDB from the file list to the last row."""
    limits = QueryLimits()
    with QuerySession(limits) as session:  # a fresh connection with httpfs loaded
        connection = session._connection
        _with_secret(connection, runtime)
        started = time.perf_counter()
        connection.execute(
            f"create view logs as select * from read_parquet([{', '.join(repr(each) for each in files)}])"
        )
        connection.execute(sql).fetchall()
        return time.perf_counter() - started


def _with_secret(connection: duckdb.DuckDBPyConnection, runtime: Runtime) -> None:
    access = runtime.settings.s3_for_queries
    connection.execute(
        f"create secret (type s3, key_id '{access.access_key}', secret '{access.secret_key}', region '{access.region}',"
        f" endpoint '{access.host}', url_style 'path', use_ssl false)"
    )


def streamed(service: Service, runtime: Runtime, stream: StreamRow) -> Iterator[str]:
    """Yield lines about one Arrow stream of all rows, and about bare DuckDB's reader of the same rows."""
    sql = "select * from logs"
    with Watch(service) as watch:
        started = time.perf_counter()
        response = service.ask(sql, "arrow", preload=False)
        with pa.ipc.open_stream(pa.PythonFile(response, mode="r")) as reader:
            rows = reader.read_next_batch().num_rows
            first = time.perf_counter() - started
            size = 0
            for batch in reader:
                rows, size = rows + batch.num_rows, size + batch.nbytes
        total = time.perf_counter() - started
    yield (
        f"Arrow stream of {rows:,} rows, {size >> 20:,} MiB: first rows after {first * 1000:.0f} ms (goal 1,000), all"
        f" after {total:.1f} s; {watch.line()}"
    )
    access = runtime.settings.s3_for_queries
    files = [access.uri(each.key) for each in runtime.catalog.files(stream.dataset_uuid, EVERYTHING)]
    with QuerySession() as session:
        _with_secret(session._connection, runtime)
        started = time.perf_counter()
        view = f"read_parquet([{', '.join(repr(each) for each in files)}])"
        bare = session._connection.execute(f"select * from {view}").to_arrow_reader(65_536)
        count = sum(batch.num_rows for batch in bare)
        taken = time.perf_counter() - started
    yield f"bare DuckDB's Arrow reader of {count:,} rows in one process, without HTTP: {taken:.1f} s"


@dataclass
class Watch:
    """Samples the memory of a service while its block runs."""

    service: Service
    looks: list[tuple[float, float]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(WATCH_SECONDS * 5):
            with suppress(psutil.Error):
                self.looks.append(self.service.memory())

    def line(self) -> str:
        """Return the memory of the first tenth, of the last tenth, and the most."""
        own, children = ([round(look[part]) for look in self.looks] for part in (0, 1))
        tenth = max(1, len(own) // 10)
        return (
            f"service {statistics.median(own[:tenth]):.0f} MiB at first, {statistics.median(own[-tenth:]):.0f} at last,"
            f" {max(own)} at most; its children together {statistics.median(children[:tenth]):.0f},"
            f" {statistics.median(children[-tenth:]):.0f}, {max(children)}"
        )


def many_clients(service: Service, ranges: int, clients: int, seconds: float) -> Iterator[str]:
    """Yield lines about clients that ask without a pause."""
    sql = questions(ranges)[1].sql
    alone = []
    for _ in range(20):
        time.sleep(0.3)
        alone.append(_seconds_of(service, sql))
    single = statistics.median(alone)
    statuses: Counter[int | str] = Counter()
    answered: list[float] = []
    until = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < until:
            started = time.perf_counter()
            try:
                status: int | str = service.ask(sql).status
            except urllib3.exceptions.HTTPError as error:
                status = type(error).__name__
            statuses[status] += 1
            if status == 200:
                answered.append(time.perf_counter() - started)
            elif status == 429:
                time.sleep(0.2)  # a client that waits as it was told would wait for a second or more

    with Watch(service) as watch:
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    p95 = statistics.quantiles(answered, n=20)[-1]
    most = 3 * single * (WAITING + RUNNING) / 2
    verdict = "met" if p95 <= most else "MISSED"
    usual = statistics.median(answered) * 1000
    yield (
        f"{clients} clients for {seconds:.0f} s, {RUNNING} queries run and {WAITING} wait: answers by status"
        f" {dict(statuses)}, {len(answered) / seconds:.1f} answered a second"
    )
    yield (
        f"one client: median {single * 1000:.0f} ms; {clients} clients:"
        f" median {usual:.0f} ms, p95 {p95 * 1000:,.0f} ms; goal {most * 1000:,.0f} ms: {verdict}"
    )
    yield watch.line()


def _pss(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / (1 << 20)
    except (psutil.Error, AttributeError):
        return 0.0


def _await(service: Service) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(urllib3.exceptions.HTTPError):
            if service.http.request("GET", f"{service.url}/healthz", timeout=2).status == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the service is not healthy")


if __name__ == "__main__":
    main()
