"""The time from a query's text to its run, in a registry of many ranges, and a row found by its hash.

    .venv/bin/python -m bench.opening [--ranges 100000] [--streams 4] [--rounds 20] [--hashed-rows 10000000]

The process runs and its children wait for a query, as in a service. Opening ends when the child calls DuckDB's
``execute``. The registry is filled through the real schema; of its objects only those exist that a view is created
over. The look-up by hash runs over compacted objects, through a proxy that adds 5 ms to each request.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from bench.table import machine
from tests.support.committed import FULL, commit_rows
from tests.support.compaction import window_of
from tests.support.filled import CHUNK, fill
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.errors import TraceError
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.lite.home import Home
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.postgres import dsn, postgres_service
from trace_dagster.lite.processes import Child
from trace_dagster.lite.s3 import s3_service
from trace_dagster.query.opening import Opening
from trace_dagster.query.relations import Lake
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.conditions import Conditions
from trace_dagster.registry.connection import Database
from trace_dagster.registry.migrations import migrate
from trace_dagster.store.access import S3Access
from trace_dagster.store.causes import PreconditionFailed
from trace_dagster.store.objects import ObjectStore, ensure_bucket

PASSWORD = "bench"
ADDED_SECONDS = 0.005
ROWS_PER_RANGE = 100_000
ROWS_PER_BLOCK = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranges", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--hashed-rows", type=int, default=10_000_000, help="0: no look-up by hash")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o755)
        database = stack.enter_context(registry(folder, "opening"))
        store = stack.enter_context(object_store(folder))
        print(machine(), f"load {os.getloadavg()[0]:.1f}", sep="; ")
        if options.hashed_rows:
            by_hash(database, store, options.hashed_rows, options.rounds)
        openings(database, store, options)


def openings(database: Database, store: ObjectStore, options: argparse.Namespace) -> None:
    """Print the time to open windows of one relation, and all of it."""
    fill(database, options.ranges, streams=options.streams)
    width = options.ranges * CHUNK // 100
    runner = QueryRunner(ahead=2)
    with runner:
        for name, conditions in (
            ("1% of one relation", f"block_number between {{first}} and {{first}} + {width - 1}"),
            ("one block", "block_number = {first}"),
            ("all of one relation", "true"),
        ):
            seconds, files = [], 0
            for number in range(options.rounds):
                sql = f"select count(*) from logs where {conditions.format(first=(number * 7919 % 99) * width)}"
                taken, files = opened(database, store, runner, sql)
                seconds.append(taken * 1000)
            print(
                f"{name}: {files} files of {options.ranges}; opened in {statistics.median(seconds):.0f} ms"
                f" (median of {len(seconds)}, {min(seconds):.0f} - {max(seconds):.0f})"
            )


def opened(database: Database, store: ObjectStore, runner: QueryRunner, sql: str) -> tuple[float, int]:
    """Return the seconds from the text to ``execute``, and the number of files."""
    catalog = Catalog(database)
    ended: list[float] = []
    files: list[int] = []
    _wait_ready(runner)
    started = time.perf_counter()
    lake = Lake(catalog.datasets(), store.access)

    def resolve(scans: dict[str, list[Conditions]]) -> list:
        found = catalog.files_to_open(lake.scans(scans))
        paused = time.perf_counter()
        for each in found.values():
            put_first(store, each.names.partition("\n")[0])
            files.append(each.names.count("\n") + 1)
        ended.append(paused - time.perf_counter())  # what the bench did itself is taken off
        return lake.relations(scans, found)

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


def by_hash(database: Database, store: ObjectStore, rows: int, rounds: int) -> None:
    """Print the time of a whole query for a transaction by its hash, through the slow object store."""
    text = job_text(
        name="hashed",
        to_block=rows // ROWS_PER_BLOCK + 1,
        chunk=ROWS_PER_RANGE // ROWS_PER_BLOCK,
        streams="transactions: {cryo_dataset_name: transactions}",
    )
    stream = apply(database, text)["transactions"]
    span = ROWS_PER_RANGE // ROWS_PER_BLOCK
    for start in range(0, rows // ROWS_PER_BLOCK, span):
        block_range = BlockRange(start, start + span)
        commit_rows(database, store, stream, block_range, FULL, transactions(stream, block_range))
    started = time.perf_counter()
    for start in range(0, rows // ROWS_PER_BLOCK, 10 * span):
        Compactor(database, store).compact(window_of(stream, start, start + 10 * span))
    print(f"compacted {rows:,} transactions in {time.perf_counter() - started:.0f} s")
    with slowed(store.access) as access, QueryRunner(ahead=2) as runner:
        opening = Opening(Catalog(database), access, CommittedObjects(database, ObjectStore(access)))
        taken = []
        for number in range(rounds):
            block = number * 7919 % (rows // ROWS_PER_BLOCK)
            value = transaction_hash(block, number % ROWS_PER_BLOCK)
            _wait_ready(runner)
            started = time.perf_counter()
            found = opening.query(runner, "select * from transactions where transaction_hash = $h", 10, {"h": value})
            taken.append((time.perf_counter() - started) * 1000)
            if len(found.rows) != 1:
                raise AssertionError(f"{len(found.rows)} rows")
    print(
        f"a transaction by hash among {rows:,} rows, {ADDED_SECONDS * 1000:.0f} ms added per request:"
        f" {statistics.median(taken):.0f} ms (median of {len(taken)}, {min(taken):.0f} - {max(taken):.0f})"
    )


def transactions(stream, block_range: BlockRange) -> pa.Table:
    """Return rows with distinct hashes; the other columns are null or constant."""
    blocks = [block for block in range(block_range.start, block_range.end) for _ in range(ROWS_PER_BLOCK)]
    hashes = [
        transaction_hash(block, n) for block in range(block_range.start, block_range.end) for n in range(ROWS_PER_BLOCK)
    ]
    values = {
        "block_number": blocks,
        "block_timestamp": [1_700_000_000_000_000 + 1_000_000 * block for block in blocks],
        "transaction_hash": hashes,
        "transaction_index": [n for _ in range(len(block_range)) for n in range(ROWS_PER_BLOCK)],
        "from_address": [value[:20] for value in hashes],
        "to_address": [value[12:] for value in hashes],
    }
    schema = stream.dataset.schema(stream.columns)
    return pa.table(
        [
            pa.array(values[field.name], field.type) if field.name in values else pa.nulls(len(blocks), field.type)
            for field in schema
        ],
        schema=schema,
    )


def transaction_hash(block: int, index: int) -> bytes:
    """Return a hash that looks like a random one."""
    from hashlib import sha256

    return sha256(f"{block}/{index}".encode()).digest()


def _wait_ready(runner: QueryRunner) -> None:
    """Wait until a child can take a query: the goal is measured with a warm one."""
    waiting = runner._ready[0]._wire
    if not waiting.poll(60):
        raise AssertionError("no child is ready")


@contextmanager
def registry(folder: Path, name: str) -> Iterator[Database]:
    """Run a Postgres server with an empty registry."""
    port = Ports({}).take()
    child = Child(postgres_service(folder / "postgres", port, PASSWORD), folder / "postgres.log")
    try:
        child.wait_healthy()
        with psycopg.connect(dsn(port, PASSWORD, "postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        migrate(dsn(port, PASSWORD, name))
        database = Database(dsn(port, PASSWORD, name))
        yield database
        database.close()
    finally:
        child.signal_stop()
        child.wait_stopped(10)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run an S3 server with an empty bucket."""
    home = Home(folder / "home")
    home.prepare()
    ports, secrets = Ports({}), home.secrets()
    port = ports.take(with_grpc=True)
    access = S3Access("lake", secrets.s3_access_key, secrets.s3_secret_key, f"http://{HOST}:{port}")
    child = Child(s3_service(home.path / "s3", ports, secrets, access, port), home.logs / "s3.log")
    try:
        child.wait_healthy()
        ensure_bucket(access)
        yield ObjectStore(access)
    finally:
        child.signal_stop()
        child.wait_stopped(10)


@contextmanager
def slowed(access: S3Access) -> Iterator[S3Access]:
    """Run a proxy before the object store that adds ADDED_SECONDS to each request."""
    port = Ports({}).take()
    loop = asyncio.new_event_loop()
    host, _, target = access.host.rpartition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, added: float) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 18):
                if added:
                    await asyncio.sleep(added)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(host, int(target))
        await asyncio.gather(pump(reader, ours, ADDED_SECONDS), pump(theirs, writer, 0.0))

    server = loop.run_until_complete(asyncio.start_server(serve, HOST, port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield replace(access, endpoint=f"http://{HOST}:{port}")
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


if __name__ == "__main__":
    main()
