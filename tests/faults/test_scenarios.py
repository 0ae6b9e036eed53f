"""Named failure scenarios, with the database's clock, so that no test sleeps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest

from tests.support.clock import advance
from tests.support.cycle import Cycle
from tests.support.registry import apply, assert_registry_sound, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import Corrupt, InvalidInput, LeaseLost, Refused, Unavailable
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.ingest.commit import Committer
from trace_dagster.planning.dispatcher import RunState, loaded_names
from trace_dagster.planning.heads import Heads
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.tasks import MAX_EXPIRIES, Lease, Tasks, Unclaimed
from trace_dagster.registry.wake import wake
from trace_dagster.wakeups.driver import WakeUp
from trace_dagster.wakeups.outbox import Outbox
from trace_dagster.wakeups.postgres import PgQueueDriver

pytestmark = pytest.mark.faults

ONE = "blocks: {cryo_dataset_name: blocks}"
FIRST = BlockRange(0, 100)


@pytest.fixture
def cycle(database, store):
    made = Cycle(database, store)
    yield made
    made.close()


def rows(database, statement, *values):
    with database.connection() as connection:
        return connection.execute(statement, values).fetchall()


def task(database):
    return rows(database, "select * from trace.tasks order by block_range")[0]


def planned(database, cycle, **options):
    """Apply a job and plan its ranges; return its blocks stream."""
    stream = apply(database, job_text(streams=ONE, **options))["blocks"]
    cycle.heads.observe(cycle.jobs.streams())
    cycle.planner.plan()
    return stream


def claimed(tasks, stream, block_range=FIRST) -> Lease:
    lease = tasks.claim(stream.task_id(block_range), stream.dataset_uuid, block_range, "run")
    assert isinstance(lease, Lease)
    return lease


class TestOutboxAndQueue:
    def test_a_publisher_that_dies_before_marking_publishes_again(self, database, cycle):
        planned(database, cycle, to_block=300)

        class DiesAfter(PgQueueDriver):
            def publish(self, bodies):
                super().publish(bodies)
                raise SystemExit

        with pytest.raises(SystemExit):
            cycle.outbox.publish(DiesAfter(database), limit=100)
        assert rows(database, "select count(*) as n from trace.outbox where sent_at is not null")[0]["n"] == 0
        assert cycle.outbox.publish(cycle.queue, limit=100) == 3
        assert rows(database, "select count(*) as n from trace.queue_messages")[0]["n"] == 6
        batches = cycle.dispatch()
        assert [len(batch.keys) for batch in batches] == [3]
        assert cycle.dispatch() == []

    def test_a_restarted_publisher_delivers_what_was_left_and_only_that(self, database, cycle):
        planned(database, cycle, to_block=500)
        assert cycle.outbox.publish(cycle.queue, limit=2) == 2
        assert Outbox(database).publish(cycle.queue, limit=100) == 3
        assert Outbox(database).publish(cycle.queue, limit=100) == 0

    def test_two_publishers_at_once_send_nothing_twice(self, database, cycle):
        planned(database, cycle, to_block=10_000, chunk=10)
        with ThreadPoolExecutor(4) as pool:
            sent = list(pool.map(lambda _: Outbox(database).publish(cycle.queue, limit=300), range(8)))
        assert sum(sent) == 1000
        assert rows(database, "select count(distinct body) as n, count(*) as m from trace.queue_messages") == [
            {"n": 1000, "m": 1000}
        ]

    def test_a_queue_that_is_down_keeps_the_outbox_and_the_plan(self, database, cycle, store):
        planned(database, cycle, to_block=300)

        class Down(PgQueueDriver):
            def publish(self, bodies):
                raise Unavailable("the queue does not answer")

        for _ in range(3):
            with pytest.raises(Unavailable):
                cycle.outbox.publish(Down(database), limit=100)
        cycle.turn()
        assert len(Catalog(database).committed_ranges(task(database)["dataset_uuid"])) == 1
        assert_registry_sound(database, store)

    @pytest.mark.parametrize("body", ["", "no json", '{"task_id": 7}', WakeUp(UUID(int=7), 1).encode()])
    def test_a_poison_message_ends_in_the_dead_table_and_changes_no_task(self, database, cycle, body):
        planned(database, cycle, to_block=100)
        before = task(database)
        cycle.queue.publish([body])
        for _ in range(8):
            assert cycle.dispatch() == []
            advance(database, 100)
        assert [row["body"] for row in rows(database, "select body from trace.queue_dead")] == [body]
        assert rows(database, "select count(*) as n from trace.queue_messages")[0]["n"] == 0
        after = task(database)
        assert {key: after[key] for key in ("state", "attempt", "failures", "batch_id", "wake_seq")} == {
            key: before[key] for key in ("state", "attempt", "failures", "batch_id", "wake_seq")
        }

    def test_losing_every_message_only_delays(self, database, cycle, store):
        stream = planned(database, cycle, to_block=300)
        cycle.outbox.publish(cycle.queue, limit=100)
        rows(database, "delete from trace.queue_messages returning 1")
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == []
        advance(database, 130)
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(0, 300)]
        assert_registry_sound(database, store)

    def test_a_message_is_acknowledged_only_once_its_run_exists(self, database, cycle):
        planned(database, cycle, to_block=100)
        cycle.outbox.publish(cycle.queue, limit=100)
        (batch,) = cycle.dispatch()
        del cycle.runs[batch.batch_id]  # Dagster did not start a run for the request
        cycle.dispatch()
        assert rows(database, "select count(*) as n from trace.queue_messages")[0]["n"] == 1
        advance(database, 61)
        (again,) = cycle.dispatch()
        assert (again.keys, again.batch_id != batch.batch_id) == (batch.keys, True)
        cycle.dispatch()
        assert rows(database, "select count(*) as n from trace.queue_messages")[0]["n"] == 0

    def test_what_a_dead_run_did_not_get_to_is_woken_at_once(self, database, cycle):
        stream = planned(database, cycle, to_block=300)
        cycle.outbox.publish(cycle.queue, limit=100)
        (batch,) = cycle.dispatch()
        assert cycle.dispatch() == []
        claimed(cycle.tasks, stream)
        cycle.runs[batch.batch_id] = RunState.OVER  # killed in its first range
        assert cycle.dispatch() == []
        assert cycle.outbox.publish(cycle.queue, limit=100) == 2
        (again,) = cycle.dispatch()
        assert again.keys == batch.keys[1:]
        advance(database, 61)
        assert cycle.outbox.publish(cycle.queue, limit=100) == 1
        (last,) = cycle.dispatch()
        assert last.keys == batch.keys[:1]

    def test_a_run_that_begins_nothing_is_not_repeated_at_once(self, database, cycle):
        planned(database, cycle, to_block=300)
        cycle.outbox.publish(cycle.queue, limit=100)
        (batch,) = cycle.dispatch()
        cycle.dispatch()
        cycle.runs[batch.batch_id] = RunState.OVER
        cycle.dispatch()
        assert cycle.outbox.publish(cycle.queue, limit=100) == 0
        advance(database, 31)
        assert cycle.outbox.publish(cycle.queue, limit=100) == 3
        assert len(cycle.dispatch()) == 1

    def test_a_run_does_not_take_what_failed_or_waits(self, database, cycle, store):
        """Check that a run, which has a first and last partition, does not try a failed range between them."""
        stream = planned(database, cycle, to_block=300)
        for number, retry in ((0, False), (1, True)):
            cell = BlockRange(number * 100, number * 100 + 100)
            cycle.tasks.fail(claimed(cycle.tasks, stream, cell), "because", retry=retry)
            assert cycle.ingest.claim(stream, cell, "run", wait_seconds=0, manual=False) is None
            assert isinstance(cycle.ingest.claim(stream, cell, "person", wait_seconds=0), ClaimedRange)

    def test_a_run_leaves_out_what_is_a_range_of_another_stream_only(self, database, cycle):
        """The streams of a run share its keys, also where their cells are cut in different places."""
        stream = planned(database, cycle, to_block=300)
        assert cycle.ingest.claim(stream, BlockRange(0, 50), "run", wait_seconds=0, manual=False) is None
        with pytest.raises(Refused, match="not a cell of the stream's plan"):
            cycle.ingest.claim(stream, BlockRange(0, 50), "person", wait_seconds=0)

    def test_wakeups_of_a_job_that_is_never_loaded_do_not_fill_the_dead_table(self, database, cycle):
        planned(database, cycle, to_block=300)
        for _ in range(12):
            cycle.outbox.publish(cycle.queue, limit=100)
            assert cycle.dispatcher.tick(lambda *_: {}, lambda _: {}, {}) == []
            advance(database, 100)
            cycle.outbox.rewake(patience_seconds=120, limit=100)
        assert cycle.queue.dead() == 0

    def test_a_stream_that_changed_since_it_was_loaded_waits_for_the_reload(self, database, cycle):
        planned(database, cycle, to_block=300)
        loaded = loaded_names(cycle.jobs.streams())
        apply(database, job_text(streams=ONE, to_block=300, chunk=50))
        cycle.planner.plan()
        cycle.outbox.publish(cycle.queue, limit=100)
        assert cycle.dispatcher.tick(lambda *_: {}, lambda _: {}, loaded) == []
        advance(database, 16)
        assert len(cycle.dispatch()) == 1

    def test_a_job_paused_while_dagster_loaded_goes_on_when_resumed(self, database, cycle, store):
        stream = planned(database, cycle, to_block=300)
        cycle.jobs.set_enabled("job", False)
        loaded = loaded_names(cycle.jobs.streams())
        assert list(loaded) == [stream.dataset_uuid]
        cycle.jobs.set_enabled("job", True)
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(0, 300)]

    def test_people_and_machines_changing_the_same_tasks_never_wait_for_each_other(self, database, cycle):
        """Check that retry, resume and closing batches lock tasks in one order, so that Postgres ends none of them."""
        stream = planned(database, cycle, to_block=8000, chunk=20)

        def person():
            for _ in range(10):
                cycle.tasks.requeue(stream.job_id, None, BlockRange(0, 8000), ("queued", "failed"))

        def machine():
            for _ in range(10):
                with database.transaction() as session:
                    ids = [row["task_id"] for row in session.all("waiting_tasks", job_id=stream.job_id, limit=1000)]
                    wake(session, ids[::-1])

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(work) for work in (person, machine, person, machine)]:
                future.result(60)

    def test_a_job_that_is_not_loaded_yet_keeps_its_wakeups(self, database, cycle):
        planned(database, cycle, to_block=100)
        cycle.outbox.publish(cycle.queue, limit=100)
        assert cycle.dispatcher.tick(lambda *_: {}, lambda _: {}, {}) == []
        advance(database, 20)
        assert len(cycle.dispatch()) == 1


class TestPlanner:
    def test_planners_at_once_plan_each_range_once(self, database, cycle, store):
        stream = apply(database, job_text(streams=ONE, to_block=20_000, chunk=10))["blocks"]
        cycle.heads.observe(cycle.jobs.streams())
        with ThreadPoolExecutor(6) as pool:
            counts = list(pool.map(lambda _: cycle.planner.plan(), range(12)))
        assert sum(counts) == 2000
        assert rows(
            database, "select count(*) as n, sum(upper(block_range) - lower(block_range)) as b from trace.tasks"
        ) == [{"n": 2000, "b": 20_000}]
        assert rows(database, "select count(*) as n from trace.outbox")[0]["n"] == 2000
        assert stream.next_block == 0

    def test_a_restarted_planner_changes_nothing(self, database, cycle):
        planned(database, cycle, to_block=1000)
        before = rows(database, "select task_id, wake_seq, updated_at from trace.tasks order by 1")
        assert Cycle(database, None).planner.plan() == 0
        assert rows(database, "select task_id, wake_seq, updated_at from trace.tasks order by 1") == before

    def test_one_streams_error_stops_no_other(self, database, cycle, monkeypatch):
        apply(database, job_text(to_block=300))
        cycle.heads.observe(cycle.jobs.streams())
        from trace_dagster.planning import planner

        real = planner.choose

        def breaks_for_blocks(session, stream, end):
            if stream.dataset_key == "blocks":
                raise ZeroDivisionError
            return real(session, stream, end)

        monkeypatch.setattr(planner, "choose", breaks_for_blocks)
        assert cycle.planner.plan() == 3
        blocks, logs = cycle.jobs.streams()
        assert (blocks.next_block, logs.next_block) == (0, 300)
        assert blocks.blocked_reason == "planning failed with an unexpected ZeroDivisionError: see the log"
        monkeypatch.undo()
        assert cycle.planner.plan() == 3
        assert cycle.jobs.streams()[0].blocked_reason is None

    def test_a_second_job_over_the_same_dataset_is_refused(self, database):
        apply(database, job_text(streams=ONE))
        with pytest.raises(InvalidInput, match="one owner per dataset"):
            apply(database, job_text(name="other", streams=ONE))


class TestFence:
    def test_a_stale_attempt_can_do_nothing(self, database, cycle, store):
        stream = planned(database, cycle, to_block=100)
        old = claimed(cycle.tasks, stream)
        advance(database, 61)
        new = claimed(cycle.tasks, stream)
        assert (new.attempt, new.token != old.token) == (2, True)
        with pytest.raises(LeaseLost):
            cycle.tasks.heartbeat(old)
        assert cycle.tasks.fail(old, "zombie", retry=False) is False
        cycle.tasks.release(old)
        cycle.tasks.heartbeat(new)
        assert task(database)["attempt"] == 2
        assert [row["state"] for row in rows(database, "select state from trace.attempts order by attempt")] == [
            "expired",
            "running",
        ]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"dataset_uuid": UUID(int=7)},
            {"range_start": 100, "range_end": 200},
            {"config_hash": "cryo_ingest.blocks:0000000000000000"},
            {"dataset_version": UUID(int=7)},
        ],
    )
    def test_a_publication_of_something_else_is_refused(self, database, cycle, store, wrong, monkeypatch):
        stream = planned(database, cycle, to_block=200)
        real = Committer._manifest

        def other(*args):
            return real(*args).model_copy(update=wrong)

        monkeypatch.setattr(Committer, "_manifest", staticmethod(other))
        with ingesting(database, store) as ingest, pytest.raises(Refused, match="is not that of the leased task"):
            ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == []
        assert task(database)["state"] == "failed"

    def test_an_attempt_without_a_publication_cannot_count_as_committed(self, database, cycle):
        """Check that the database refuses it, independent of the code."""
        stream = planned(database, cycle, to_block=100)
        lease = claimed(cycle.tasks, stream)

        def pretend():
            with database.transaction() as session:
                session.run("finish_attempt", task_id=lease.task_id, attempt=1, generation=0, state="committed")

        with pytest.raises(Corrupt, match="attempts_committed_with_publication"):
            pretend()
        assert task(database)["state"] == "running"

    def test_a_second_publication_of_an_attempt_is_refused(self, database, cycle, store, monkeypatch):
        stream = planned(database, cycle, to_block=100)
        real = Publications.commit
        seen = []

        def twice(self, lease, manifest, **values):
            real(self, lease, manifest, **values)
            seen.append((lease, manifest, values))

        monkeypatch.setattr(Publications, "commit", twice)
        with ingesting(database, store) as ingest:
            ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
        lease, manifest, values = seen[0]
        with pytest.raises(LeaseLost):
            real(Publications(database), lease, manifest, **values)
        assert_registry_sound(database, store)

    def test_a_version_cannot_be_registered_again_with_other_content(self, database, cycle, store, monkeypatch):
        stream = planned(database, cycle, to_block=100)
        real = Publications.commit
        seen = []

        def noted(self, lease, manifest, **values):
            seen.append((manifest, values))
            real(self, lease, manifest, **values)

        monkeypatch.setattr(Publications, "commit", noted)
        with ingesting(database, store) as ingest:
            first = ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
        cycle.tasks.requeue(stream.job_id, None, FIRST, ("committed",))
        lease = claimed(cycle.tasks, stream)
        manifest, values = seen[0]
        other = manifest.model_copy(update={"content_digest": "0" * 64, "attempt": lease.attempt})
        with pytest.raises(Corrupt):
            real(Publications(database), lease, other, **values)
        assert Publications(database).visible(stream.dataset_uuid, FIRST) == replace(first, created=False)
        assert_registry_sound(database, store)


class Failing(FakeCryo):
    def extract(self, request):
        raise Unavailable("node away")


class TestRetries:
    def test_a_retry_waits_longer_each_time_and_wakes_by_itself(self, database, cycle, store):
        stream = planned(database, cycle, to_block=100)
        waits = []
        with ingesting(database, store, engine=Failing(), max_attempts=4) as ingest:
            for _ in range(3):
                with pytest.raises(Unavailable):
                    ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
                (row,) = rows(database, "select extract(epoch from not_before - now()) as wait, state from trace.tasks")
                assert row["state"] == "queued"
                waits.append(float(row["wait"]))
        assert 2.5 <= waits[0] <= 5
        assert 5 <= waits[1] <= 10
        assert 10 <= waits[2] <= 20
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == []  # too early: no task is woken
        advance(database, 21)
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [FIRST]
        assert_registry_sound(database, store)

    def test_a_range_that_fails_for_good_frees_its_slot_and_can_be_tried_again(self, database, cycle, store):
        stream = planned(database, cycle, to_block=200, inflight=1)
        with ingesting(database, store, engine=Failing(), max_attempts=1) as ingest, pytest.raises(Unavailable):
            ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
        assert (task(database)["state"], task(database)["error"]) == (
            "dead",
            "gave up after 1 tries: node away",
        )
        cycle.turn()
        advance(database, 700)
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(100, 200)]
        assert cycle.tasks.requeue(stream.job_id, "logs", FIRST, ("failed", "dead")) == 0
        assert cycle.tasks.requeue(stream.job_id, "blocks", BlockRange(99, 100), ("failed", "dead")) == 1
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(0, 200)]
        assert_registry_sound(database, store)

    def test_being_killed_does_not_use_up_the_tries_but_not_for_ever_either(self, database, cycle):
        stream = planned(database, cycle, to_block=100)
        for _ in range(MAX_EXPIRIES):
            claimed(cycle.tasks, stream)
            advance(database, 61)
        assert (task(database)["failures"], task(database)["expiries"]) == (0, MAX_EXPIRIES - 1)
        with pytest.raises(Refused, match="its process died 20 times"):
            claimed(cycle.tasks, stream)
        assert task(database)["state"] == "dead"
        assert rows(database, "select count(*) as n from trace.attempts where state = 'running'")[0]["n"] == 0

    def test_a_reason_may_hold_anything(self, database, cycle):
        stream = planned(database, cycle, to_block=100)
        assert cycle.tasks.fail(claimed(cycle.tasks, stream), "nul \x00 and \ud800 and " + "x" * 10_000, retry=True)
        assert task(database)["error"].startswith("nul  and ? and xxx")
        assert len(task(database)["error"]) == 2000

    def test_a_failed_pool_ends_the_attempt_with_its_reason(self, database, cycle, store):
        stream = planned(database, cycle, to_block=100)
        with ingesting(database, store) as ingest:
            ingest._pool = lambda *_: (_ for _ in ()).throw(Unavailable("rpc pool none does not answer"))
            with pytest.raises(Unavailable):
                ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
        assert (task(database)["state"], task(database)["error"]) == ("queued", "rpc pool none does not answer")


class TestByHand:
    def test_a_range_that_is_not_final_yet_is_refused(self, database, cycle):
        stream = apply(database, job_text(streams=ONE))["blocks"]
        Heads(database, lambda _: (900, 450)).observe(cycle.jobs.streams())
        cycle.planner.plan()
        with pytest.raises(Refused, match="not final yet"):
            cycle.ingest.claim(stream, BlockRange(900, 1000), "person", wait_seconds=0)

    def test_a_range_nobody_planned_is_planned_by_its_claim(self, database, store):
        stream = apply(database, job_text(streams=ONE))["blocks"]
        with ingesting(database, store) as ingest:
            assert ingest.commit(ingest.start(ingest.claim(stream, BlockRange(300, 400), "ui", wait_seconds=0))).created
        cycle = Cycle(database, store)
        cycle.turn()
        cycle.close()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(0, 1000)]
        assert_registry_sound(database, store)

    def test_many_who_ask_for_a_range_at_the_same_moment_plan_it_once(self, database, store):
        stream = apply(database, job_text(streams=ONE, to_block=10_000))["blocks"]
        tasks, start = Tasks(database), threading.Barrier(6)

        def person(block_range):
            start.wait(30)
            tasks.ensure(stream.task_id(block_range), stream.dataset_uuid, block_range, stream.config_hash)

        spans = BlockRange(0, 10_000).split(100)
        with ThreadPoolExecutor(6) as pool:
            for each in [pool.submit(person, span) for span in spans for _ in range(6)]:
                each.result(60)
        assert_registry_sound(database, store)

    def test_two_people_and_the_planner_over_the_same_ranges(self, database, store):
        stream = apply(database, job_text(streams=ONE, to_block=400, inflight=3))["blocks"]
        extracted = []

        class Counting(FakeCryo):
            def extract(self, request):
                extracted.append(request.block_range)
                return super().extract(request)

        def person(number):
            with ingesting(database, store, engine=Counting()) as ingest:
                for start in range(0, 400, 100):
                    work = ingest.claim(stream, BlockRange(start, start + 100), f"ui{number}", wait_seconds=30)
                    if hasattr(work, "lease"):
                        ingest.commit(ingest.start(work))

        cycle = Cycle(database, store)
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(person, number) for number in range(2)] + [pool.submit(cycle.turn)]
            for job in jobs:
                job.result(60)
        cycle.close()
        assert sorted(extracted) == sorted(set(extracted))  # the loser of a claim does no RPC work
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(0, 400)]
        assert_registry_sound(database, store)

    def test_refresh_confirms_the_same_rows_and_replaces_others(self, database, cycle, store):
        stream = planned(database, cycle, to_block=100)
        cycle.turn()
        first = Publications(database).visible(stream.dataset_uuid, FIRST)
        assert cycle.tasks.requeue(stream.job_id, "blocks", FIRST, ("committed",)) == 1
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [FIRST]  # readers keep what there is
        cycle.turn()
        assert Publications(database).visible(stream.dataset_uuid, FIRST) == first
        store.delete([file.key for file in Publications(database).files(first)])
        cycle.tasks.requeue(stream.job_id, "blocks", FIRST, ("committed",))
        cycle.turn()
        repaired = Publications(database).visible(stream.dataset_uuid, FIRST)
        assert (repaired.generation, repaired.content_digest) == (1, first.content_digest)
        assert len(list(store.keys(f"cryo/99/{stream.dataset_uuid}/0_100/{repaired.dataset_version}/"))) == 2

    def test_a_paused_job_gets_no_lease_and_goes_on_when_resumed(self, database, cycle, store):
        stream = planned(database, cycle, to_block=300)
        assert cycle.jobs.set_enabled("job", False)
        assert not cycle.jobs.set_enabled("job", False)
        with pytest.raises(Refused, match="trace-lite resume"):
            claimed(cycle.tasks, stream)
        apply(database, job_text(streams=ONE, to_block=300))  # a paused job stays paused
        cycle.turn()
        advance(database, 700)
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == []
        cycle.jobs.set_enabled("job", True)
        cycle.turn()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(0, 300)]

    def test_a_slot_is_waited_for_without_an_end_a_lease_is_not(self, database, cycle):
        stream = planned(database, cycle, to_block=200, inflight=1)
        claimed(cycle.tasks, stream)
        other = cycle.tasks.claim(stream.task_id(BlockRange(100, 200)), stream.dataset_uuid, BlockRange(100, 200), "r")
        assert other is Unclaimed.NO_SLOT
        with pytest.raises(Unavailable, match="leased by another run"):
            cycle.ingest.claim(stream, FIRST, "run", wait_seconds=0)
