"""The handle between the Cryo op and the IO manager: its attempt ends immediately, however the step ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psutil
import pyarrow as pa
import pytest
from dagster import (
    DagsterEventType,
    DagsterInstance,
    Definitions,
    DynamicPartitionsDefinition,
    IOManager,
    IOManagerDefinition,
    ResourceDefinition,
    define_asset_job,
    execute_job,
    reconstructable,
)

from tests.support.nodes import environment, serving
from tests.support.registry import apply, assert_registry_sound, ingesting, job_text
from trace_dagster.blocks import BlockRange, cells
from trace_dagster.config.settings import settings_from
from trace_dagster.dagster_instance.executor import thread_executor
from trace_dagster.defs.resources import commit_io_manager, runtime_resource
from trace_dagster.defs.streams import IO_MANAGER, RUNTIME, stream_asset
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import EndpointLacks, LeaseLost, Unavailable
from trace_dagster.extraction.piece_stream import LOOK_AHEAD
from trace_dagster.ingest.range_extraction import RangeExtraction
from trace_dagster.registry.jobs import Jobs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
FIRST = BlockRange(0, 100)
SPAN = BlockRange(0, 400)
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
PARTITIONS = DynamicPartitionsDefinition(name="ranges")
BLOCKS = "blocks: {cryo_dataset_name: blocks}"
TRANSACTIONS = "transactions: {cryo_dataset_name: transactions, verify: structural}"


class Gate(FakeCryo):
    """A fake engine that counts its calls. They return while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.is_asked, self.is_open = threading.Event(), threading.Event()

    def extract(self, request):
        self.calls += 1
        self.is_asked.set()
        assert self.is_open.wait(60)
        return super().extract(request)


def attempts(database):
    """Return (state, reason) of every attempt, oldest first."""
    with database.connection() as connection:
        rows = connection.execute("select state, error from trace.attempts order by started_at").fetchall()
    return [(row["state"], row["error"]) for row in rows]


def task_state(database):
    with database.connection() as connection:
        (row,) = connection.execute(
            "select state, failures, expiries from trace.tasks where lower(block_range) = 0"
        ).fetchall()
    return row["state"], row["failures"], row["expiries"]


@pytest.fixture
def blocks(database):
    return apply(database, job_text(streams=BLOCKS, to_block=SPAN.end))["blocks"]


def test_the_first_pieces_are_under_way_before_anyone_drains_them(database, store, blocks):
    engine = Gate()
    with ingesting(database, store, engine=engine, piece_blocks=10) as ingest:
        extraction = ingest.start(ingest.claim(blocks, FIRST, "run", wait_seconds=0))
        assert engine.is_asked.wait(10)
        engine.is_open.set()
        assert ingest.commit(extraction).rows == len(FIRST)
    assert_registry_sound(database, store)


def test_a_handle_that_is_closed_fails_its_attempt_at_once(database, store, blocks):
    engine = Gate()
    with ingesting(database, store, engine=engine) as ingest:
        extraction = ingest.start(ingest.claim(blocks, FIRST, "run", wait_seconds=0))
        assert engine.is_asked.wait(10)
        extraction.close()
        assert attempts(database) == [("failed", "the step ended before the IO manager committed the range")]
        assert task_state(database)[0] == "queued"
        extraction.close()  # closing a second time has no effect
        engine.is_open.set()
        with pytest.raises(LeaseLost):
            ingest.commit(extraction)
        assert len(attempts(database)) == 1
        again = ingest.claim(blocks, FIRST, "run", wait_seconds=0)
        assert ingest.commit(ingest.start(again)).created, "the next attempt did not wait for the lease to lapse"
    assert_registry_sound(database, store)


def test_a_range_that_cannot_be_started_fails_its_attempt(database, store, blocks):
    with ingesting(database, store) as ingest:

        def no_pool(spec):
            raise Unavailable("the pool does not answer")

        ingest._pool = no_pool
        with pytest.raises(Unavailable):
            ingest.start(ingest.claim(blocks, FIRST, "run", wait_seconds=0))
    assert attempts(database) == [("failed", "the pool does not answer")]


def test_closing_an_ingester_returns_its_ranges_without_counting_a_failure(database, store, blocks):
    engine = Gate()
    with ingesting(database, store, engine=engine) as ingest:
        extraction = ingest.start(ingest.claim(blocks, FIRST, "run", wait_seconds=0))
        ingest.close()
        assert attempts(database) == [("expired", "the run was stopped")]
        assert task_state(database) == ("queued", 0, 0)
        engine.is_open.set()
        with pytest.raises(Unavailable, match="the run was stopped"):
            ingest.commit(extraction)
        assert attempts(database) == [("expired", "the run was stopped")]
    assert_registry_sound(database, store)


@pytest.mark.parametrize("failure", [Unavailable("no answer"), RuntimeError("the pool is closed"), None])
def test_a_range_that_is_drained_while_its_run_is_stopped_says_so(database, store, blocks, failure):
    """Check the reason for each way in which the drain can fail: an engine error, a bug's error, no error at all."""

    class FailsWhenStopped(Gate):
        def extract(self, request):
            table = super().extract(request)
            if failure is not None:
                raise failure
            return table

    engine = FailsWhenStopped()
    with ingesting(database, store, engine=engine) as ingest, ThreadPoolExecutor(1) as threads:
        extraction = ingest.start(ingest.claim(blocks, FIRST, "run", wait_seconds=0))
        drained = threads.submit(ingest.commit, extraction)
        assert engine.is_asked.wait(10)
        ingest.close()
        engine.is_open.set()
        with pytest.raises(Unavailable, match="the run was stopped"):
            drained.result(30)
        assert attempts(database) == [("expired", "the run was stopped")]
        assert task_state(database) == ("queued", 0, 0)
    assert_registry_sound(database, store)


def test_closing_after_the_commit_changes_nothing(database, store, blocks):
    with ingesting(database, store) as ingest:
        extraction = ingest.start(ingest.claim(blocks, FIRST, "run", wait_seconds=0))
        ingest.commit(extraction)
        extraction.close()
        ingest.close()
    assert attempts(database) == [("committed", None)]
    assert_registry_sound(database, store)


def test_a_close_during_the_commit_ends_in_one_outcome(database, store, blocks):
    """The step's end and the run's end race with a commit: the range is committed, or its attempt has ended."""
    with ingesting(database, store, piece_blocks=10) as ingest:
        for number, cell in enumerate(cells(SPAN, 100)):
            extraction = ingest.start(ingest.claim(blocks, cell, "run", wait_seconds=0))
            closing = threading.Timer(0.01 * number, extraction.close)
            closing.start()
            expected = "committed"
            try:
                ingest.commit(extraction)
            except (LeaseLost, Unavailable):
                expected = "failed"
            closing.join()
            assert attempts(database)[number][0] == expected
    assert_registry_sound(database, store)


def test_memory_stays_flat_while_many_steps_wait(database, store):
    """16 ranges of 50 pieces wait to be drained. Each holds its look-ahead and not its whole range."""
    waiting, pieces, size = 16, 50, 10
    end = waiting * pieces * size
    stream = apply(database, job_text(streams=BLOCKS, to_block=end, chunk=pieces * size, inflight=waiting))["blocks"]
    engine = Gate()
    engine.is_open.set()
    with ingesting(database, store, engine=engine, piece_blocks=size) as ingest:
        opened = [
            ingest.start(ingest.claim(stream, cell, "run", wait_seconds=0))
            for cell in cells(BlockRange(0, end), pieces * size)
        ]
        deadline = time.monotonic() + 20
        while engine.calls < 2 * waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # a third piece would have been extracted by now
        before = pa.total_allocated_bytes()
        assert engine.calls == 2 * waiting
        time.sleep(0.3)
        assert pa.total_allocated_bytes() == before
        assert [ingest.commit(extraction).rows for extraction in opened] == [pieces * size] * waiting
    assert_registry_sound(database, store)


class CountingCryo(EmbeddedCryo):
    """The real engine, which counts the calls that ended."""

    calls = 0

    def extract(self, request):
        try:
            return super().extract(request)
        finally:
            self.calls += 1


def test_memory_stays_flat_while_many_steps_wait_for_the_real_engine(database, store):
    """16 ranges of 20 pieces wait to be drained. This process and Cryo's worker do not grow while they wait."""
    waiting, pieces, size = 16, 20, 5
    end = waiting * pieces * size
    text = job_text(streams=TRANSACTIONS, to_block=end, chunk=pieces * size, inflight=waiting)
    stream = apply(database, text.replace("chain_id: 99", f"chain_id: {CHAIN_ID}"))["transactions"]
    chain = DevChain(7, end + 1)
    with (
        serving(chain) as url,
        closing(CountingCryo()) as engine,
        ingesting(database, store, engine=engine, url=url, piece_blocks=size) as ingest,
    ):
        opened = [
            ingest.start(ingest.claim(stream, cell, "run", wait_seconds=0))
            for cell in cells(BlockRange(0, end), pieces * size)
        ]
        while engine.calls < LOOK_AHEAD * waiting:
            time.sleep(0.01)
        before = resident_bytes(engine)
        time.sleep(1)  # the first 32 calls took as long
        assert engine.calls == LOOK_AHEAD * waiting
        assert resident_bytes(engine) < before * 1.02
        assert sum(table.num_rows for each in opened for table in each.tables()) == chain.rows("transactions", 0, end)
        assert engine.calls == pieces * waiting


def resident_bytes(engine):
    """Return the resident bytes of this process and the engine's workers."""
    return sum(psutil.Process(pid).memory_info().rss for pid in (os.getpid(), *engine.pids()))


class NeverDrains(IOManager):
    """An IO manager that fails before the commit."""

    def handle_output(self, context, obj):
        assert isinstance(obj, RangeExtraction)
        raise RuntimeError("the IO manager did not get this far")

    def load_input(self, context):
        raise AssertionError


STREAMS = []
VARIABLES: dict[str, str] = {}
"""The stream and environment of the test that runs. Reconstructable jobs take no arguments, and Dagster caches them."""


def committing_job():
    return _job(commit_io_manager)


def failing_job():
    return _job(IOManagerDefinition.hardcoded_io_manager(NeverDrains()))


def _runtime(context):
    """Return the product's own runtime, built from the variables of the current test."""
    yield from runtime_resource(settings_from(VARIABLES)).resource_fn(context)


def _job(io_manager):
    definitions = Definitions(
        assets=[stream_asset(STREAMS[0], PARTITIONS)],
        jobs=[define_asset_job("sync")],
        resources={RUNTIME: ResourceDefinition(_runtime), IO_MANAGER: io_manager},
        executor=thread_executor,
    )
    return definitions.resolve_job_def("sync")


@pytest.fixture
def run(blocks, postgres_url, s3, tmp_path):
    """Run the ranges of SPAN in the real Dagster, in this process; return its instance and run."""
    STREAMS[:] = [blocks]
    VARIABLES.clear()
    VARIABLES.update(environment(postgres_url, s3), TRACE_CRYO_MODE="fake")
    keys = [cell.key for cell in cells(SPAN, 100)]
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("ranges", keys)

        def execute(job):
            with execute_job(reconstructable(job), instance, run_config=SILENT, tags=tags, raise_on_error=False):
                pass
            (found,) = instance.get_runs()
            return instance, found

        yield execute


def test_a_step_that_fails_before_the_io_manager_drains_it_ends_its_attempt(run, database, store):
    _, found = run(failing_job)
    assert found.is_failure
    assert attempts(database) == [("failed", "the step ended before the IO manager committed the range")] * 4
    assert_registry_sound(database, store)


@contextmanager
def interrupted_at(event):
    """Interrupt this process when the event is set, as Dagster's launcher does when a run is terminated."""

    def interrupt():
        if event.wait(60):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


def test_a_run_that_is_terminated_while_it_extracts_returns_its_ranges(run, database, store, monkeypatch):
    asked, gate = threading.Event(), threading.Event()
    real = FakeCryo.extract

    def held(self, request):
        asked.set()
        assert gate.wait(60)
        return real(self, request)

    monkeypatch.setattr(FakeCryo, "extract", held)
    with interrupted_at(asked):
        _, found = run(committing_job)
    gate.set()
    assert found.is_failure
    ended = attempts(database)
    assert ended
    assert {state for state, _ in ended} <= {"expired"}, ended
    assert task_state(database)[:2] == ("queued", 0)
    assert_registry_sound(database, store)


def test_a_run_that_is_terminated_before_or_after_its_ranges_leaves_the_registry_sound(
    run, database, store, monkeypatch
):
    from trace_dagster.registry.publications import Publications

    committed = threading.Event()
    real = Publications.commit

    def noted(self, *args, **kwargs):
        real(self, *args, **kwargs)
        committed.set()

    monkeypatch.setattr(Publications, "commit", noted)
    with interrupted_at(committed):
        run(committing_job)
    assert {state for state, _ in attempts(database)} <= {"committed", "expired"}
    assert ("committed", None) in attempts(database)
    assert_registry_sound(database, store)


def test_a_run_has_one_event_per_commit_and_its_line_says_what_was_committed(run, database, store):
    instance, found = run(committing_job)
    assert found.is_success
    events = instance.all_logs(found.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    lines = sorted(event.dagster_event.event_specific_data.materialization.description for event in events)
    assert len(lines) == 4
    assert lines[0].startswith("100 rows of blocks [0, 100), ")
    assert "verified: structural" in lines[0]
    messages = [entry for entry in instance.all_logs(found.run_id) if entry.dagster_event is None]
    assert messages == [], "nothing else of ours is stored in Dagster's event log"
    assert_registry_sound(database, store)


def observations(instance, found):
    """Return the reasons that a run observed, by partition."""
    events = instance.all_logs(found.run_id, of_type=DagsterEventType.ASSET_OBSERVATION)
    seen = [event.dagster_event.event_specific_data.asset_observation for event in events]
    return {each.partition: (each.metadata["reason"].value, each.metadata["next"].value) for each in seen}


@pytest.mark.parametrize(
    ("error", "following"),
    [
        (Unavailable("the node is away"), "it is tried again, unless it used up its attempts"),
        (EndpointLacks("the node lacks a method"), "remove the cause, then `trace-lite retry --job job"),
    ],
)
def test_the_page_of_a_failed_partition_names_the_reason(run, database, monkeypatch, error, following):
    real = FakeCryo.extract

    def one_fails(self, request):
        if request.block_range.start < 200:
            raise error
        return real(self, request)

    monkeypatch.setattr(FakeCryo, "extract", one_fails)
    instance, found = run(committing_job)
    assert found.is_failure
    seen = observations(instance, found)
    assert sorted(seen) == [cell.key for cell in cells(BlockRange(0, 200), 100)]
    for reason, then in seen.values():
        assert reason.startswith(error.message)
        assert then.startswith(following)


def test_a_range_that_cannot_be_claimed_is_observed_too(run, database):
    Jobs(database).set_enabled("job", False)
    instance, found = run(committing_job)
    assert found.is_failure
    assert {reason.partition(" (")[0] for reason, _ in observations(instance, found).values()} == {"its job is paused"}
