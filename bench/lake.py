"""What compaction is worth and what it costs, with time added to every S3 request.

    .venv/bin/python -m bench.lake [--ranges 1000] [--rows 3600] [--rounds 3] [--latency 0.005] [--hash-rows 10000000]
        [--opened-ranges 100000]

A stream of made-up logs is committed range by range. Its window is compacted in a fresh process, and the same objects
are read and written by a bare pyarrow process. Then the same queries run over the compacted files and over the files as
they were before, which a pinned query may still read; both sides are pruned by the registry. At last, transactions are
looked up by their hash in a compacted stream, beside a query that DuckDB answers alone from the same files; and queries
are opened in a registry of many ranges.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bench.made_lake import RARE, made, spread, transaction_hash
from bench.opening import openings, wait_ready
from bench.slow_s3 import Door, Traffic, door
from bench.table import Compared, in_turn, machine, markdown
from bench.verification import services
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.compaction.window import Window
from trace_dagster.config.settings import settings_from
from trace_dagster.digest import ContentDigest
from trace_dagster.query.opening import Opening
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.as_of import AsOf
from trace_dagster.registry.catalog import EVERYTHING, LakeSnapshot, Opened, VisibleDataset
from trace_dagster.registry.conditions import Conditions, Reads
from trace_dagster.registry.connection import Database
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

CHUNK = 100
TARGET_BYTES = 256 << 20
_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Copied:
    """One process that read objects and wrote them as few large ones."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: its time, and what passed between its process and S3."""

    seconds: float
    traffic: Traffic
    result: QueryResult


class Pinned:
    """The catalog as a query sees it that was opened before the compaction."""

    def __init__(self, runtime: Runtime) -> None:
        self._catalog = runtime.catalog
        self._now: LakeSnapshot
        self._kept: dict[str, Opened] = {}
        self.is_before = True

    def offered(self) -> tuple[list[VisibleDataset], tuple[int, ...]]:
        """Return every dataset, and the chains that are followed."""
        return self._catalog.offered()

    @contextmanager
    def snapshot(self, datasets: Collection[UUID], as_of: AsOf, chains: Collection[int]) -> Iterator[Pinned]:
        """Hold a snapshot of the catalog inside the block."""
        with self._catalog.snapshot(datasets, as_of, chains) as self._now:
            yield self

    def open(self, reads: Mapping[UUID, Reads]) -> Opened:
        """Return the files as they were at the first query that reads this."""
        if self.is_before:
            self._kept[repr(reads)] = self._now.open(reads)
        return self._kept[repr(reads)]


def window_of(stream: StreamRow, block_range: BlockRange, target_bytes: int = TARGET_BYTES) -> Window:
    """Return a window of a stream."""
    return Window(
        dataset_uuid=stream.dataset_uuid,
        chain_id=stream.chain_id,
        dataset_key=stream.dataset_key,
        dataset_name=stream.dataset.name,
        block_range=block_range,
        target_bytes=target_bytes,
    )


def compacted(variables: Mapping[str, str], window: Window) -> Copied:
    """Compact a window in a process of its own."""
    order = {
        "kind": "compact",
        **{name: str(getattr(window, name)) for name in ("dataset_uuid", "dataset_key", "dataset_name")},
        "chain_id": window.chain_id,
        "start": window.block_range.start,
        "end": window.block_range.end,
        "target_bytes": window.target_bytes,
    }
    return _child(variables, order)


def copied(variables: Mapping[str, str], keys: Sequence[str], name: str) -> Copied:
    """Read objects and write their rows in files of the same size with pyarrow alone."""
    return _child(variables, {"kind": "copy", "keys": list(keys), "name": name, "target_bytes": TARGET_BYTES})


def _child(variables: Mapping[str, str], order: Mapping[str, object]) -> Copied:
    done = subprocess.run(
        [sys.executable, "-m", "bench.lake", "--child"],
        env={**os.environ, **variables},
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Copied(**json.loads(done.stdout))


def _work(order: dict[str, object]) -> Copied:
    runtime = Runtime(settings_from(os.environ))
    started = time.perf_counter()
    if order.pop("kind") == "compact":
        span = BlockRange(int(str(order.pop("start"))), int(str(order.pop("end"))))
        window = Window(**{**order, "dataset_uuid": UUID(str(order["dataset_uuid"])), "block_range": span})  # type: ignore[arg-type]
        result = Compactor(runtime.database, runtime.store).compact(window)
        if not result.files_after:
            raise AssertionError(result.reason)
        print(result.reason, file=sys.stderr)
    else:
        _copy(runtime, **order)  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
    runtime.close()
    return Copied(seconds, peak)


def _copy(runtime: Runtime, keys: Sequence[str], name: str, target_bytes: int) -> None:
    bucket, filesystem = runtime.settings.s3.bucket, runtime.store.filesystem()
    found = ds.dataset([f"{bucket}/{key}" for key in keys], format="parquet", filesystem=filesystem)
    writer: pq.ParquetWriter | None = None
    part = 0
    for batch in found.scanner().to_batches():
        if writer is None:
            path = f"{bucket}/copies/{name}-{part}.parquet"
            sink = filesystem.open_output_stream(path)
            writer = pq.ParquetWriter(sink, found.schema, compression="zstd", compression_level=1)
        writer.write_batch(batch)
        if sink.tell() >= target_bytes:
            writer.close()
            sink.close()
            writer, part = None, part + 1
    if writer is not None:
        writer.close()
        sink.close()


def ask(opening: Opening, runner: QueryRunner, sql: str, at: Door) -> Asked:
    """Run a query, and count its requests and bytes."""
    before, started = at.traffic(), time.perf_counter()
    result = opening.query(runner, sql)
    seconds = time.perf_counter() - started
    return Asked(seconds, at.traffic().since(before), result)


def content_digest(runtime: Runtime, stream: StreamRow, keys: Sequence[str]) -> str:
    """Return the digest over all rows of these files, in their order."""
    schema = stream.dataset.schema(stream.columns)
    digest = ContentDigest(schema)
    for key in keys:
        for batch in pq.ParquetFile(pa.BufferReader(runtime.store.get(key)[0])).iter_batches():
            digest.update(pa.Table.from_batches([batch]).cast(schema))
    return digest.hexdigest()


def measure(direct: Mapping[str, str], at: Door, options: argparse.Namespace) -> list[Compared]:
    """Measure everything; ``direct`` is the environment without the door."""
    slow = {**direct, "TRACE_S3_ENDPOINT": at.endpoint}
    fill, runtime = Runtime(settings_from(direct)), Runtime(settings_from(slow))
    try:
        rows = _compaction(fill, runtime, slow, at, options)
        return [*rows, *_by_hash(fill, runtime, slow, at, options)]
    finally:
        fill.close()
        runtime.close()


def _compaction(
    fill: Runtime, runtime: Runtime, slow: Mapping[str, str], at: Door, options: argparse.Namespace
) -> list[Compared]:
    span = BlockRange(0, options.ranges * CHUNK)
    streams = [_logs(fill, options) for _ in range(options.rounds)]
    stream = streams[0]
    before = runtime.catalog.files(stream.dataset_uuid, EVERYTHING)
    average = sum(_bytes(fill.database, stream)) / len(before)
    print(
        f"geometry: {len(before):,} ranges of {CHUNK} blocks and {options.rows:,} logs, {average / _KIB:.0f} KiB a file"
    )
    pinned = Pinned(runtime)
    name = f"chain_{stream.chain_id}.{stream.dataset_key}"
    queries = _queries(name, span)
    with QueryRunner() as runner:
        for sql in queries.values():
            Opening(pinned, runtime.settings.s3_for_queries, runtime.committed_objects).query(runner, sql)  # type: ignore[arg-type]
    pinned.is_before = False
    keys = [file.key for file in before]
    pairs = []
    for number, each in enumerate(streams):
        objects = [file.key for file in runtime.catalog.files(each.dataset_uuid, EVERYTHING)]
        ours, bare = in_turn(
            number,
            lambda each=each: compacted(slow, window_of(each, span)),
            lambda objects=objects, number=number: copied(slow, objects, f"copy_{number}"),
        )
        pairs.append((ours, bare))
    after = [file.key for file in runtime.catalog.files(stream.dataset_uuid, EVERYTHING)]
    if content_digest(fill, stream, keys) != content_digest(fill, stream, after):
        raise AssertionError("compaction changed the rows")
    print(f"compacted: {len(after)} files, same content digest")
    sizes = [sum(each.bytes for each in fill.store.stored(found).values()) / _MIB for found in (after, keys)]
    quarter = _logs(fill, options)
    small = compacted(slow, window_of(quarter, BlockRange(0, span.end // 4)))
    note = f"beside a bare pyarrow read and write of the same {len(keys):,} objects"
    return [
        Compared(f"compaction, {note}", "s", tuple((one.seconds, two.seconds) for one, two in pairs), "at most 1.67"),
        Compared(
            "compaction: peak memory beside a window of a quarter of the blocks",
            "MiB, peak",
            tuple((one.peak_bytes / _MIB, small.peak_bytes / _MIB) for one, _ in pairs),
            "under 1 GiB",
        ),
        Compared("bytes stored: compacted beside uncompacted", "MiB", ((sizes[0], sizes[1]),), "at most 0.8"),
        *_reading(runtime, pinned, queries, at, options.query_rounds),
        _rare(fill, runtime, slow, options),
    ]


def _queries(name: str, span: BlockRange) -> dict[str, str]:
    first = span.end // 2
    facts = "count(*), sum(octet_length(data)), count(distinct address), max(topic1), max(topic2)"
    window = f"where block_number between {first} and {first + len(span) // 100 - 1}"
    return {"1% window": f"select {facts} from {name} {window}", "full scan": f"select {facts} from {name}"}


def _reading(runtime: Runtime, pinned: Pinned, queries: Mapping[str, str], at: Door, rounds: int) -> list[Compared]:
    access, committed = runtime.settings.s3_for_queries, runtime.committed_objects
    now, earlier = Opening(runtime.catalog, access, committed), Opening(pinned, access, committed)  # type: ignore[arg-type]
    found = []
    with QueryRunner() as runner:
        for what, sql in queries.items():
            pairs: list[tuple[Asked, Asked]] = []
            for number in range(rounds):
                pairs.append(
                    in_turn(
                        number,
                        lambda sql=sql: _warm(now, runner, sql, at),
                        lambda sql=sql: _warm(earlier, runner, sql, at),
                    )
                )
            if any(one.result.rows != two.result.rows for one, two in pairs):
                raise AssertionError(f"{what}: compacted files give other rows")
            last, other = pairs[-1]
            note = f"S3 requests: {last.traffic.requests:,} beside {other.traffic.requests:,}"
            timed = tuple((one.seconds, two.seconds) for one, two in pairs)
            read = tuple((one.traffic.bytes_read / _MIB, two.traffic.bytes_read / _MIB) for one, two in pairs)
            found += [
                Compared(f"{what}: compacted beside uncompacted, both pruned", "s", timed, note),
                Compared(f"{what}: bytes read", "MiB", read),
            ]
    return found


def _warm(opening: Opening, runner: QueryRunner, sql: str, at: Door) -> Asked:
    wait_ready(runner)  # a service keeps processes ready
    return ask(opening, runner, sql, at)


def _rare(fill: Runtime, runtime: Runtime, slow: Mapping[str, str], options: argparse.Namespace) -> Compared:
    """Compact into about 100 files, or fewer in a small run, and ask for an address that one block has."""
    stream = _logs(fill, options)
    total = sum(_bytes(fill.database, stream))
    compacted(
        slow, window_of(stream, BlockRange(0, options.ranges * CHUNK), int(total) // min(100, options.ranges // 4))
    )
    whole = runtime.catalog.open({stream.dataset_uuid: Reads()}).files[stream.dataset_uuid]
    wanted = Conditions(values={"address": frozenset([RARE])})
    found = runtime.catalog.open({stream.dataset_uuid: Reads((wanted,))}).files[stream.dataset_uuid]
    pair = (float(len(found.all_keys())), float(len(whole.all_keys())))
    return Compared("a rare address: files opened, of all files", "files", (pair,), "at most 5 of 100")


def _by_hash(
    fill: Runtime, runtime: Runtime, slow: Mapping[str, str], at: Door, options: argparse.Namespace
) -> list[Compared]:
    ranges = min(100, options.ranges)
    stream = made(fill.database, fill.store, "transactions", ranges, CHUNK, options.hash_rows // ranges)
    span = BlockRange(0, ranges * CHUNK)
    compacted(slow, window_of(stream, span))
    access, committed = runtime.settings.s3_for_queries, runtime.committed_objects
    opening = Opening(runtime.catalog, access, committed)
    name = f"chain_{stream.chain_id}.{stream.dataset_key}"
    pairs = []
    with QueryRunner() as runner:
        for number, block in enumerate(spread(options.query_rounds, span.end)):
            wanted = f"'0x{transaction_hash(block, 0).hex()}'"
            sql = f"select block_number, transaction_index, from_address from {name} where transaction_hash = {wanted}"
            scan = sql.replace("transaction_hash =", "transaction_hash || ''::blob =")  # no look-up understands this
            one, two = in_turn(
                number,
                lambda sql=sql: _warm(opening, runner, sql, at),
                lambda scan=scan: _warm(opening, runner, scan, at),
            )
            if [row[0] for row in one.result.rows] != [block] or one.result.rows != two.result.rows:
                raise AssertionError(f"transaction {wanted} was not found: {one.result.rows} {two.result.rows}")
            pairs.append((one.seconds * 1000, two.seconds * 1000))
    what = f"a transaction by hash among {options.hash_rows:,}, beside a scan of the same files"
    return [Compared(what, "ms", tuple(pairs), "at most 300 ms")]


def _logs(runtime: Runtime, options: argparse.Namespace) -> StreamRow:
    return made(runtime.database, runtime.store, "logs", options.ranges, CHUNK, options.rows)


def _bytes(database: Database, stream: StreamRow) -> list[int]:
    with database.connection() as connection:
        rows = connection.execute(
            "select byte_count from trace.dataset_versions where dataset_uuid = %s and visible", [stream.dataset_uuid]
        ).fetchall()
    return [int(row["byte_count"]) for row in rows]


def main() -> None:
    """Measure and print the table; in a child, do what stdin says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranges", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=3600, help="logs in each range")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--query-rounds", type=int, default=7)
    parser.add_argument("--latency", type=float, default=0.005, help="seconds added to each S3 request")
    parser.add_argument("--hash-rows", type=int, default=10_000_000)
    parser.add_argument("--opened-ranges", type=int, default=100_000, help="in each of four streams")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        done = _work(json.load(sys.stdin))
        print(json.dumps({"seconds": done.seconds, "peak_bytes": done.peak_bytes}))
        return
    with (
        tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as folder,
        services(Path(folder)) as direct,
        door(direct["TRACE_S3_ENDPOINT"].removeprefix("http://"), options.latency) as at,
    ):
        rows = measure(direct, at, options)
        runtime = Runtime(settings_from(direct))
        found = openings(runtime, ranges=options.opened_ranges, streams=4, rounds=20)
        runtime.close()
    print(f"{machine()}; {options.latency * 1000:.0f} ms added to each S3 request\n\n{markdown(rows)}")
    print("", *(f"- {line}" for line in found), sep="\n")


if __name__ == "__main__":
    main()
