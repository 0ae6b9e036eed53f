"""The cost of the control plane's steps after many committed ranges, relative to few.

    .venv/bin/python -m bench.control_plane [--few 1000] [--many 100000] [--streams 5] [--rounds 30]

Two registries in one real Postgres, filled through the real schema, take turns: each round plans, publishes, cuts,
claims, sends heartbeats, commits and reads in both. Dagster's storage is in the same databases and has every range.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import psycopg
from dagster import DagsterInstance

from bench.partitions_page import materialize_all, paired
from bench.table import Compared, machine, markdown
from tests.support.filled import CHUNK, claim, fill, publish, show_head, streams_of
from trace_dagster.blocks import BlockRange
from trace_dagster.defs.partitions import register_ahead, register_keys, repair
from trace_dagster.lite.ports import Ports
from trace_dagster.lite.postgres import dsn, postgres_service
from trace_dagster.lite.processes import Child
from trace_dagster.planning.dispatcher import Dispatcher, RunBatch, RunState, loaded_names
from trace_dagster.planning.grids import grids
from trace_dagster.planning.planner import Planner
from trace_dagster.planning.run_groups import partitions_name
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.migrations import migrate
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.retention import RangeFolder, Retention
from trace_dagster.registry.status import job_statuses, stream_coverages
from trace_dagster.registry.tasks import Tasks
from trace_dagster.wakeups.outbox import Outbox
from trace_dagster.wakeups.postgres import PgQueueDriver

JOB = "filled"
GRACE_SECONDS = 86_400.0
PASSWORD = "bench"
STORAGE = """
storage:
  custom: {module: trace_dagster.dagster_instance.storage, class: TraceDagsterStorage, config: {}}
telemetry: {enabled: false}
"""

NO_STORE = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
PAGE_ROUNDS = 6
"""An even number, so that each side goes first equally often: the second one waits longer."""

LISTINGS = 5
"""Turns in which every file is listed, which takes seconds."""

Timed = Callable[[str, Callable[[], object]], None]


class Plane:
    """One filled registry with all parts of one process."""

    def __init__(self, url: str, ranges: int, streams: int, instance: DagsterInstance) -> None:
        self.database = Database(url)
        self.instance = instance
        self._streams = fill(self.database, ranges, name=JOB, streams=streams)
        self._blocks = ranges * CHUNK
        self._jobs, self._tasks = Jobs(self.database), Tasks(self.database)
        self._outbox, self._queue = Outbox(self.database), PgQueueDriver(self.database)
        self._planner = Planner(self.database, self._jobs)
        self._dispatcher = Dispatcher(self.database, self._jobs, self._queue)
        self._reading, self._sweeping = Catalog(self.database), Retention(self.database)

    def register(self) -> None:
        """Add every range to Dagster, as the planner's sensor does at its repairs."""
        for grid in grids(streams_of(self._jobs, JOB)):
            repair(self.database, grid, self.instance)

    def _register(self, new: BlockRange) -> None:
        streams = streams_of(self._jobs, JOB)
        register_ahead(self.database, streams, self.instance)
        register_keys(partitions_name(streams[0]), [new.key], self.instance)

    def turn(self, timed: Timed) -> None:
        """Bring one new range of every stream from the head to its commit; then read everything."""
        timed("plan, nothing to do", self._planner.plan)
        new = BlockRange(self._blocks, self._blocks + CHUNK)
        self._blocks = new.end
        show_head(self.database, self._streams[0], new.end)
        timed("plan, one new range per stream", self._planner.plan)
        timed("register the new range in Dagster", lambda new=new: self._register(new))
        timed("publish wake-ups", lambda: self._outbox.publish(self._queue, limit=1000))
        timed("dispatch, one batch", self._cut)
        for stream in self._streams:
            leases = []
            timed("claim", lambda stream=stream, leases=leases: leases.append(claim(self.database, stream, new)))
            timed("heartbeat", lambda leases=leases: self._tasks.heartbeat(leases[0]))
            timed("commit", lambda stream=stream, leases=leases: publish(self.database, leases[0], stream, new))
        self._tick()  # settles the batch
        timed("dispatch, nothing to do", self._tick)
        timed("wake what was forgotten", lambda: self._outbox.rewake(patience_seconds=60, limit=1000))
        timed("commits Dagster was not told", self._tell)
        timed("status", lambda: job_statuses(self.database, self._jobs))
        timed("coverage of every stream", lambda: stream_coverages(self.database, self._jobs))
        timed("snapshot, every dataset's schema and sums", self._reading.datasets)
        timed("snapshot, the files of one range", lambda: self._reading.files(self._streams[0].dataset_uuid, new))
        timed("sweep: fence, retire, prune", self._sweep)
        timed("sweep: the objects of one range", lambda: self._folder(new))

    def list_files(self, timed: Timed) -> None:
        """List every file, which grows with the number of ranges because its answer does."""
        timed("snapshot, every file of every dataset (grows by nature)", self._reading.lake)

    def beside_stock(self, home: Path, url: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
        """Load the location and the partitions page with every range materialized; return seconds of ours and
        of stock.
        """
        stream, partitions = self._streams[0], partitions_name(self._streams[0])
        first = Publications(self.database).visible(stream.dataset_uuid, BlockRange(0, CHUNK))
        if first is None:
            raise AssertionError("the first range is not committed")
        materialize_all(url, self.instance, stream, partitions, first)
        environment = {"TRACE_POSTGRES_URL": url, **NO_STORE}
        return paired(home, environment, stream, partitions, len(self._streams), rounds)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()
        self.instance.dispose()

    def _cut(self) -> None:
        if len(self._tick()) != 1:
            raise AssertionError("the new ranges are not cut into one batch")

    def _tick(self) -> list[RunBatch]:
        return self._dispatcher.tick(
            lambda group, keys: register_keys(group.partitions_name, keys, self.instance),
            lambda batches: dict.fromkeys(batches, RunState.OVER),
            loaded_names(self._streams),
        )

    def _tell(self) -> None:
        commits = self._outbox.unconfirmed_commits(older_than_seconds=-1, limit=500)
        self._outbox.mark_confirmed([commit.outbox_id for commit in commits])

    def _sweep(self) -> None:
        self._sweeping.abandon(GRACE_SECONDS, dry_run=False)
        self._sweeping.retire(GRACE_SECONDS, dry_run=False)
        self._sweeping.prune(GRACE_SECONDS)

    def _folder(self, block_range: BlockRange) -> None:
        folder = RangeFolder(self._streams[0].dataset_uuid, block_range)
        with self._sweeping.locked(folder, GRACE_SECONDS, dry_run=True):
            pass


def measure(few: int, many: int, streams: int, rounds: int) -> list[Compared]:
    """Measure every step ``rounds`` times after many and after few ranges, and the UI's pages relative to stock
    Dagster.
    """
    counts = (many, few)
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        port = stack.enter_context(postgres())
        homes = {
            count: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trace-bench-"))) for count in counts
        }
        urls = {count: database_for(port, f"ranges_{count}") for count in counts}
        planes = {count: stack.enter_context(plane(homes[count], urls[count], count, streams)) for count in counts}

        def timed_in(count: int) -> Timed:
            def timed(step: str, action: Callable[[], object]) -> None:
                started = time.perf_counter()
                action()
                found[step][count].append(time.perf_counter() - started)

            return timed

        for count, each in planes.items():
            timed_in(count)("register every range of a new job in Dagster", each.register)
            each.turn(lambda _, action: action())  # opens connections and fills caches; not counted
        for number in range(rounds):
            for count, each in sorted(planes.items(), reverse=number % 2 == 0):  # the sides alternate in who is first
                each.turn(timed_in(count))
                if number < LISTINGS:
                    each.list_files(timed_in(count))
        beside = planes[many].beside_stock(homes[many], urls[many], PAGE_ROUNDS)
    steps = {
        f"{step}: {many:,} ranges beside {few:,}": zip(by_count[many], by_count[few], strict=True)
        for step, by_count in found.items()
    }
    pages = {f"{step}, beside stock Dagster": pairs for step, pairs in beside.items()}
    return [
        Compared(what, "ms", tuple((one * 1000, other * 1000) for one, other in pairs))
        for what, pairs in {**steps, **pages}.items()
    ]


@contextmanager
def postgres() -> Iterator[int]:
    """Run a Postgres server; yield its port."""
    with tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = Ports({}).take()
        child = Child(postgres_service(folder / "postgres", port, PASSWORD), folder / "postgres.log")
        try:
            child.wait_healthy()
            yield port
        finally:
            child.signal_stop()
            child.wait_stopped(10)


def database_for(port: int, name: str) -> str:
    """Create a migrated database and return its URL."""
    with psycopg.connect(dsn(port, PASSWORD, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    url = dsn(port, PASSWORD, name)
    migrate(url)
    return url


@contextmanager
def plane(home: Path, url: str, ranges: int, streams: int) -> Iterator[Plane]:
    """Create a filled registry, and a Dagster instance at ``home`` over the same database."""
    (home / "dagster.yaml").write_text(STORAGE)
    with patch.dict(os.environ, TRACE_POSTGRES_URL=url):
        instance = DagsterInstance.from_config(str(home))
    started = time.perf_counter()
    made = Plane(url, ranges, streams, instance)
    print(f"{ranges} ranges x {streams} filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    try:
        yield made
    finally:
        made.close()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=1_000, help="committed ranges per stream")
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    rows = measure(options.few, options.many, options.streams, options.rounds)
    print(f"{machine()}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
