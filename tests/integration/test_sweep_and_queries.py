"""Sweep removes no object that a running query of the service's log may read, whatever the grace period is."""

from __future__ import annotations

import threading
import time
from random import Random
from uuid import uuid4

import pytest

from tests.integration.test_compaction import changed, commit, committed
from tests.support.clock import advance
from tests.support.compaction import files_of, window_of
from tests.support.registry import apply, assert_registry_sound, job_text
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.maintenance.sweep import sweep
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.conditions import Reads
from trace_dagster.registry.query_log import QueryLog

pytestmark = pytest.mark.integration

STREAMS = "logs: {cryo_dataset_name: logs}"
RANGES = 4
MARGIN = 600.0
"""Seconds before a query's begin from which on replaced files are kept for it."""


@pytest.fixture
def stream(database):
    return apply(database, job_text(streams=STREAMS, chunk=20))["logs"]


class Queries:
    """Queries as the service runs them: logged, then opened; and the objects that each one reads."""

    def __init__(self, database, stream):
        self.log, self._catalog, self._stream = QueryLog(database), Catalog(database), stream
        self.reading = {}

    def begin(self, seconds=3600.0):
        query = uuid4()
        self.log.begin(query, None, "arrow", seconds)
        opened = self._catalog.open({self._stream.dataset_uuid: Reads()})
        self.log.read(query, opened)
        files = [found for each in opened.files.values() for found in each.layout_files]
        indexes = {file.index_key for file in files if file.index_key}
        self.reading[query] = {key for each in opened.files.values() for key in each.all_keys()} | indexes
        return query

    def end(self, query):
        self.log.end(query, "done", 1, 1)
        del self.reading[query]


def swept(database, store, grace_seconds):
    return sweep(database, store, grace_seconds=grace_seconds, dry_run=False)


def test_a_running_query_keeps_its_files_and_an_ended_one_does_not(database, store, stream):
    committed(database, store, stream, RANGES)
    queries = Queries(database, stream)
    query = queries.begin()
    before = set(files_of(database, stream))
    Compactor(database, store).compact(window_of(stream, 0, RANGES * 20))
    commit(database, store, stream, 0, changed(stream, 0))
    advance(database, 1000)
    dry = sweep(database, store, grace_seconds=0, dry_run=True)
    found = swept(database, store, 0)
    assert {**dry.to_json(), "dry_run": False} == found.to_json()
    assert (found.objects_removed, found.generations_retired, found.replaced_links_dropped) == (0, 0, 0)
    assert found.queries_that_keep_files == 1
    assert "1 running queries keep what was replaced since they began" in found.lines()
    assert before <= set(store.keys(""))
    queries.end(query)
    found = swept(database, store, 0)
    assert (found.generations_retired, found.queries_that_keep_files) == (1, 0)
    assert not before & set(store.keys(""))
    assert_registry_sound(database, store)


def test_a_query_does_not_keep_what_was_replaced_long_before_it(database, store, stream):
    committed(database, store, stream, RANGES)
    before = set(files_of(database, stream))
    Compactor(database, store).compact(window_of(stream, 0, RANGES * 20))
    advance(database, MARGIN + 60)
    queries = Queries(database, stream)
    queries.begin()
    assert swept(database, store, 0).replaced_links_dropped == RANGES
    assert not before & set(store.keys(""))
    assert all(keys <= set(store.keys("")) for keys in queries.reading.values())


def test_a_query_of_a_dead_service_keeps_files_until_its_deadline(database, store, stream):
    committed(database, store, stream, RANGES)
    Queries(database, stream).begin(seconds=2000)
    Compactor(database, store).compact(window_of(stream, 0, RANGES * 20))
    advance(database, 1900)
    assert swept(database, store, 0).replaced_links_dropped == 0
    advance(database, 200)
    assert swept(database, store, 0).replaced_links_dropped == RANGES


def test_a_long_grace_period_holds_beside_queries(database, store, stream):
    committed(database, store, stream, RANGES)
    Compactor(database, store).compact(window_of(stream, 0, RANGES * 20))
    advance(database, 5000)
    Queries(database, stream).begin()
    found = swept(database, store, 6000)
    assert (found.replaced_links_dropped, found.queries_that_keep_files) == (0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_no_order_of_steps_takes_a_file_from_a_running_query(database, store, stream, seed):
    """Commits, compactions, queries and sweeps in random orders; without queries, only current objects are left."""
    random = Random(seed)
    committed(database, store, stream, RANGES)
    queries = Queries(database, stream)
    for _ in range(25):
        step = random.choice(["replace", "compact", "begin", "begin", "end", "wait", "sweep", "sweep"])
        if step == "replace":
            number = random.randrange(RANGES)
            commit(database, store, stream, number, changed(stream, number, address=random.randbytes(20)))
        elif step == "compact":
            Compactor(database, store).compact(window_of(stream, 0, RANGES * 20))
        elif step == "begin":
            queries.begin(seconds=1e6)
        elif step == "end" and queries.reading:
            queries.end(random.choice(list(queries.reading)))
        elif step == "wait":
            advance(database, random.choice([10, 500, 5000]))
        elif step == "sweep":
            swept(database, store, random.choice([0, 0, 100, 1000]))
            stored = set(store.keys(""))
            assert all(keys <= stored for keys in queries.reading.values())
    for query in list(queries.reading):
        queries.end(query)
    advance(database, 1)
    swept(database, store, 0)
    left = {key for key in store.keys("") if key.endswith(".parquet") and not key.endswith("/hashes.parquet")}
    assert left == set(files_of(database, stream))
    assert_registry_sound(database, store)


def test_queries_that_begin_while_sweeps_run_keep_their_files(database, store, stream):
    """Sweeps without any grace period run all the time, beside commits that replace ranges and queries that open."""
    committed(database, store, stream, RANGES)
    stop, lost, swept_objects, read = threading.Event(), [], [0], [0]
    failures = []

    def repeat(step):
        def run():
            try:
                while not stop.is_set():
                    step()
            except BaseException as error:
                failures.append(error)
                stop.set()

        return threading.Thread(target=run)

    random = Random(1)

    def replace():
        number = random.randrange(RANGES)
        commit(database, store, stream, number, changed(stream, number, address=random.randbytes(20)))

    def clean():
        swept_objects[0] += swept(database, store, 0).objects_removed

    def ask():
        queries = Queries(database, stream)
        query = queries.begin()
        time.sleep(0.05)
        lost.extend(key for key in queries.reading[query] if key not in set(store.keys(key)))
        read[0] += len(queries.reading[query])
        queries.end(query)

    threads = [repeat(step) for step in (replace, clean, ask, ask)]
    for thread in threads:
        thread.start()
    stop.wait(8)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert lost == []
    assert read[0] > 20
    advance(database, MARGIN)
    clean()
    assert swept_objects[0] > 0
