"""Random interleavings of all parts that use the registry, over the real SQL, checked after every step.

Hypothesis runs planners, publishers, dispatchers, workers that crash, clocks that jump, and people who apply, pause,
retry and refresh. The model contains only what the product promises: which worker holds a range, and which blocks are
committed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.clock import advance
from tests.support.cycle import Cycle
from tests.support.registry import apply, job_text
from tests.support.transitions import DOCUMENTED, log_transitions, seen_transitions
from trace_dagster.blocks import BlockRange, cells
from trace_dagster.errors import LeaseLost, Refused
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.manifest import Manifest, ManifestFile
from trace_dagster.planning.dispatcher import RunState
from trace_dagster.registry.connection import Database
from trace_dagster.registry.retention import Retention
from trace_dagster.registry.tasks import Lease, Tasks

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

ONE = "blocks: {cryo_dataset_name: blocks}"
CHUNKS = st.sampled_from([50, 100])
ENDS = st.sampled_from([200, 300, 330])
TTL = 60
EXAMPLES = int(os.environ.get("TRACE_FAULTS_EXAMPLES", "25"))


@dataclass
class Worker:
    """A process that claimed a range; its lease may have expired without its knowledge."""

    lease: Lease
    block_range: BlockRange
    config_hash: str


class Registry(RuleBasedStateMachine):
    """All parts together."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database(self.url)
        self.sql(
            "truncate trace.jobs, trace.datasets, trace.streams, trace.tasks, trace.attempts, trace.dataset_versions,"
            " trace.files, trace.version_files, trace.outbox, trace.batches, trace.head_observations,"
            " trace.queue_messages, trace.queue_dead cascade"
        )
        self.cycle = Cycle(self.database, None, head=10_000, ttl=TTL)
        self.workers: list[Worker] = []
        self.holder: dict[UUID, Lease] = {}
        """The last lease of each task until its attempt ends: its holder may commit."""
        self.committed: set[int] = set()
        self.paused = False
        self.end = 300
        self.stream = self.applied(100, 300)
        self.cycle.heads.observe(self.cycle.jobs.streams())

    def sql(self, statement: str, *values: object) -> list[dict]:
        with self.database.connection() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def applied(self, chunk: int, end: int):
        self.end = end
        return apply(self.database, job_text(streams=ONE, to_block=end, chunk=chunk, inflight=3))["blocks"]

    # actions of people

    @rule(chunk=CHUNKS, end=ENDS)
    def apply_again(self, chunk, end):
        self.stream = self.applied(chunk, end)

    @rule()
    def pause_or_resume(self):
        self.paused = not self.paused
        assert self.cycle.jobs.set_enabled("job", not self.paused)

    @rule(states=st.sampled_from([("failed", "dead"), ("committed",)]), start=st.integers(0, 300))
    def retry_or_refresh(self, states, start):
        self.cycle.tasks.requeue(self.stream.job_id, None, BlockRange(start, start + 60), states)

    # actions of the planner, the publisher, the dispatcher

    @rule()
    def plan(self):
        self.cycle.planner.plan()

    @rule()
    def publish(self):
        self.cycle.outbox.publish(self.cycle.queue, limit=100)

    @rule(patience=st.sampled_from([0, 60]))
    def rewake(self, patience):
        self.cycle.outbox.rewake(patience_seconds=patience, limit=100)

    @rule(state=st.sampled_from([RunState.QUEUED, RunState.STARTED]))
    def dispatch(self, state):
        self.cycle.dispatch(state)

    @precondition(lambda self: self.cycle.runs)
    @rule(data=st.data())
    def a_run_ends(self, data):
        runs = list(self.cycle.runs)  # by index: their ids are random
        self.cycle.runs[runs[data.draw(st.integers(0, len(runs) - 1))]] = RunState.OVER

    # misbehaviour of the queue

    @rule()
    def messages_are_lost(self):
        self.sql("delete from trace.queue_messages where message_id %% 2 = 0")

    @rule()
    def messages_are_doubled(self):
        self.sql("insert into trace.queue_messages (body) select body from trace.queue_messages limit 5")

    # time

    @rule(seconds=st.sampled_from([1, TTL + 1, 700]))
    def time_passes(self, seconds):
        advance(self.database, seconds)

    @rule()
    def a_sweep_fences(self):
        fenced = self.sql("select task_id from trace.tasks where state = 'running' and lease_expires_at < now()")
        Retention(self.database).abandon(0, dry_run=False)
        for row in fenced:
            self.holder.pop(row["task_id"], None)

    # actions of workers

    @rule(data=st.data(), refresh=st.booleans())
    def a_worker_claims(self, data, refresh):
        cell = data.draw(st.sampled_from(list(cells(BlockRange(0, self.end), self.stream.chunk_size))))
        identity = self.stream.task_id(cell)
        self.cycle.tasks.ensure(identity, self.stream.dataset_uuid, cell, self.stream.config_hash)
        live = self.sql("select count(*) as n from trace.tasks where state = 'running' and lease_expires_at >= now()")
        try:
            lease = self.cycle.tasks.claim(identity, self.stream.dataset_uuid, cell, "run", refresh=refresh)
        except Refused:
            return
        if isinstance(lease, Lease):
            assert not self.paused
            assert live[0]["n"] < 3
            self.holder[identity] = lease
            self.workers.append(Worker(lease, cell, self.stream.config_hash))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_beats(self, data):
        worker = self.workers[data.draw(st.integers(0, len(self.workers) - 1))]
        if self.holds(worker):
            self.cycle.tasks.heartbeat(worker.lease)
        else:
            with pytest.raises(LeaseLost):
                self.cycle.tasks.heartbeat(worker.lease)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), rows=st.sampled_from(["a", "b"]))
    def a_worker_commits(self, data, rows):
        worker = self.taken(data)
        if self.holds(worker):
            self.commit(worker, rows)
            del self.holder[worker.lease.task_id]
            self.committed |= set(range(worker.block_range.start, worker.block_range.end))
        else:
            with pytest.raises(LeaseLost):
                self.commit(worker, rows)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), retry=st.booleans())
    def a_worker_fails(self, data, retry):
        worker = self.taken(data)
        held = self.holds(worker)
        again = self.cycle.tasks.fail(worker.lease, "because", retry=retry)
        assert not (again and not (held and retry))
        if held:
            del self.holder[worker.lease.task_id]

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_is_told_to_stop(self, data):
        worker = self.taken(data)
        self.cycle.tasks.release(worker.lease)
        if self.holds(worker):
            del self.holder[worker.lease.task_id]

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_is_killed(self, data):
        self.taken(data)

    def taken(self, data) -> Worker:
        return self.workers.pop(data.draw(st.integers(0, len(self.workers) - 1)))

    def holds(self, worker: Worker) -> bool:
        return self.holder.get(worker.lease.task_id) == worker.lease

    def commit(self, worker: Worker, rows: str) -> None:
        manifest = self.manifest(worker, rows)
        visible = self.cycle.publications.visible(self.stream.dataset_uuid, worker.block_range)
        if visible and visible.content_digest == manifest.content_digest:
            self.cycle.publications.confirm(worker.lease, visible)
            return
        self.cycle.publications.commit(
            worker.lease,
            manifest,
            storage_ref="s3://none/",
            manifest_key=f"{manifest.dataset_version}/_manifest.json",
            manifest_sha256=sha256(manifest.encode()).hexdigest(),
            schema=[],
            metrics={},
        )

    def manifest(self, worker: Worker, rows: str) -> Manifest:
        target = CommitTarget(
            self.stream.dataset_uuid, "blocks", "blocks", 99, worker.block_range, worker.config_hash, schema=None
        )
        key = target.parquet_key(worker.lease, 0)
        digest = sha256(rows.encode()).hexdigest()
        file = ManifestFile(key=key, bytes=1, sha256=digest, rows=1, min_block=0, max_block=0)
        return Manifest(
            dataset_uuid=target.dataset_uuid,
            dataset_version=target.version(worker.lease.generation),
            chain_id=99,
            dataset_key="blocks",
            cryo_dataset_name="blocks",
            range_start=worker.block_range.start,
            range_end=worker.block_range.end,
            config_hash=worker.config_hash,
            generation=worker.lease.generation,
            attempt=worker.lease.attempt,
            schema_fingerprint="0" * 64,
            parquet_keys=[key],
            files=[file],
            rows=1,
            content_digest=digest,
            verification={},
            engine={"name": "fake", "version": "1"},
        )

    # invariants

    @invariant()
    def what_is_committed_stays_visible_once(self):
        rows = self.sql(
            "select lower(block_range) as s, upper(block_range) as e from trace.dataset_versions where visible"
        )
        blocks = [block for row in rows for block in range(row["s"], row["e"])]
        assert sorted(blocks) == sorted(self.committed)

    @invariant()
    def active_tasks_never_overlap_and_the_cursor_passes_no_hole(self):
        rows = self.sql(
            "select lower(block_range) as s, upper(block_range) as e from trace.tasks where state <> 'superseded'"
        )
        blocks = [block for row in rows for block in range(row["s"], row["e"])]
        assert len(blocks) == len(set(blocks))
        (stream,) = self.sql("select next_block, to_block from trace.streams")
        assert set(range(min(stream["next_block"], stream["to_block"]))) <= set(blocks)

    @invariant()
    def a_lease_and_its_attempt_are_one(self):
        rows = self.sql(
            "select t.task_id, t.attempt, t.lease_token, t.state, "
            " (select count(*) from trace.attempts a where a.task_id = t.task_id and a.state = 'running') as running,"
            " (select max(a.attempt) from trace.attempts a where a.task_id = t.task_id) as last"
            " from trace.tasks t"
        )
        for row in rows:
            assert row["running"] == (row["state"] == "running")
            assert (row["last"] or 0) == row["attempt"]
            held = self.holder.get(row["task_id"])
            assert (row["state"] == "running") == (held is not None)
            assert held is None or (held.attempt, held.token) == (row["attempt"], row["lease_token"])

    @invariant()
    def every_commit_has_one_version_and_one_event(self):
        (row,) = self.sql(
            "select (select count(*) from trace.outbox where kind = 'range_committed') as events,"
            " (select count(*) from trace.dataset_versions) as versions,"
            " (select count(*) from trace.attempts where state = 'committed') as attempts"
        )
        assert row["events"] == row["versions"] == row["attempts"]

    @invariant()
    def no_more_than_max_inflight_are_leased(self):
        (row,) = self.sql("select count(*) as n from trace.tasks where state = 'running' and lease_expires_at >= now()")
        assert row["n"] <= 3

    @invariant()
    def only_documented_transitions_happen(self):
        assert seen_transitions(self.database) <= DOCUMENTED

    def teardown(self):
        """Check that the job finishes when people and faults stop."""
        try:
            self.finish()
        finally:
            self.cycle.close()
            self.database.close()

    def finish(self):
        if self.paused:
            self.pause_or_resume()
        self.workers.clear()
        self.cycle.runs = dict.fromkeys(
            self.cycle.runs, RunState.OVER
        )  # every run ends at some time, because Dagster's monitoring ends it
        for _ in range(12):
            advance(self.database, 700)
            self.cycle.tasks.requeue(self.stream.job_id, None, BlockRange(0, 1000), ("failed", "dead"))
            self.cycle.heads.observe(self.cycle.jobs.streams())
            self.plan()
            self.cycle.outbox.rewake(patience_seconds=60, limit=100)
            self.publish()
            while batches := self.cycle.dispatch():
                for batch in batches:
                    for key in batch.keys:
                        self.work(BlockRange.from_key(key))
                    self.cycle.runs[batch.batch_id] = RunState.OVER
            if self.committed >= set(range(self.end)):
                return
        raise AssertionError(f"never finished: {sorted(set(range(self.end)) - self.committed)[:5]}")

    def work(self, block_range: BlockRange):
        identity = self.stream.task_id(block_range)
        lease = self.cycle.tasks.claim(identity, self.stream.dataset_uuid, block_range, "run")
        if isinstance(lease, Lease):
            self.holder[identity] = lease
            worker = Worker(lease, block_range, self.stream.config_hash)
            self.commit(worker, "a")
            del self.holder[identity]
            self.committed |= set(range(block_range.start, block_range.end))


def test_whoever_does_what_in_which_order_nothing_is_lost(postgres_url):
    database = Database(postgres_url)
    log_transitions(database)
    Registry.url = postgres_url
    run_state_machine_as_test(
        Registry,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize="TRACE_FAULTS_EXAMPLES" not in os.environ,  # `make faults` draws new examples
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    print(f"{len(seen_transitions(database))} of {len(DOCUMENTED)} documented transitions happened")
    database.close()


def test_every_documented_transition_happens(database, store):
    """Check that every transition on the page happens in the code."""
    log_transitions(database)
    cycle = Cycle(database, store)
    hasty = Tasks(database, max_attempts=1)
    stream = apply(database, job_text(streams=ONE, to_block=900))["blocks"]
    cycle.heads.observe(cycle.jobs.streams())
    cycle.planner.plan()

    def claim(number, **options):
        cell = BlockRange(number * 100, number * 100 + 100)
        lease = cycle.tasks.claim(stream.task_id(cell), stream.dataset_uuid, cell, "run", **options)
        assert isinstance(lease, Lease)
        return lease

    def again(number, state):
        assert cycle.tasks.requeue(stream.job_id, None, BlockRange(number * 100, number * 100 + 1), (state,)) == 1

    cycle.ingest.commit(cycle.ingest.start(ClaimedRange(stream, BlockRange(0, 100), claim(0))))
    again(0, "committed")
    cycle.ingest.commit(cycle.ingest.start(ClaimedRange(stream, BlockRange(0, 100), claim(0))))
    cycle.tasks.release(claim(0, refresh=True))
    claim(1)
    advance(database, 61)
    claim(1)
    for number, tasks, retry, state in ((2, cycle.tasks, False, "failed"), (3, hasty, True, "dead")):
        tasks.fail(claim(number), "because", retry=retry)
        again(number, state)
        tasks.fail(claim(number), "because", retry=retry)
        tasks.fail(claim(number), "because", retry=retry)
    apply(database, job_text(streams=ONE, to_block=900, chunk=50))
    apply(database, job_text(streams=ONE, to_block=900))
    cycle.planner.plan()
    derived = UUID(int=1)
    cycle.jobs.add_derived(derived, 99, "template", {})
    schema = pa.schema([("n", pa.int64())])
    for number in (1, 2):
        target = CommitTarget(derived, "t", "template", 99, BlockRange(0, number), "c", schema, whole=True)
        rows = RangeRows(iter([pa.table({"n": [number]})]), dict, {"name": "sql", "version": "1"})
        cycle.ingest.commit_derived(derived, UUID(int=10 + number), target, rows, "run")
    cycle.tasks.claim(UUID(int=12), derived, BlockRange(0, 2), "run", refresh=True)
    cycle.tasks.replace(UUID(int=13), derived, BlockRange(0, 3), "c")
    cycle.close()
    assert seen_transitions(database) == DOCUMENTED
