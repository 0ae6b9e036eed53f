"""Planning: heads, eligible ends, and the changes that an apply may make."""

from __future__ import annotations

import pytest

from tests.support.clock import advance
from tests.support.cycle import Cycle
from tests.support.registry import apply, assert_registry_sound, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import parse
from trace_dagster.errors import Unavailable
from trace_dagster.planning.heads import Heads
from trace_dagster.planning.planner import Planner
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.jobs import Bounds, Jobs

pytestmark = pytest.mark.integration

ONE = "blocks: {cryo_dataset_name: blocks}"
FOLLOW = """
kind: chain_sync
name: job
chain_id: 99
mode: {{kind: follow_head, from_block: {start}, tail_lag: {lag}, max_head_age_seconds: 60}}
defaults: {{rpc_pool: none, chunk_size: 100}}
streams:
  blocks: {{cryo_dataset_name: blocks}}
"""


def follow(database, start=0, lag=0):
    job = parse(FOLLOW.format(start=start, lag=lag))
    Jobs(database).apply(job, Bounds(start, None))


def observe(database, latest, finalized=None):
    jobs = Jobs(database)
    Heads(database, lambda _: (latest, latest if finalized is None else finalized)).observe(jobs.streams())
    return jobs


def plan(database):
    """Plan a single time; return the planned ranges and the reason why no more are planned."""
    jobs = Jobs(database)
    Planner(database, jobs).plan()
    with database.connection() as connection:
        rows = connection.execute(
            "select lower(block_range) as s, upper(block_range) as e from trace.tasks"
            " where state <> 'superseded' order by 1"
        ).fetchall()
    return [(row["s"], row["e"]) for row in rows], jobs.streams()[0].blocked_reason


def test_the_tip_waits_until_its_cell_is_full(database):
    follow(database)
    observe(database, latest=249)
    assert plan(database) == ([(0, 100), (100, 200)], None)
    advance(database, 10)
    observe(database, latest=298)
    assert plan(database)[0] == [(0, 100), (100, 200)]
    advance(database, 10)
    observe(database, latest=299)
    assert plan(database)[0] == [(0, 100), (100, 200), (200, 300)]


@pytest.mark.parametrize(
    ("latest", "finalized", "lag", "ends"),
    [(399, 399, 0, 400), (399, 250, 0, 200), (399, 399, 150, 200), (399, 299, 150, 200), (50, 50, 100, None)],
)
def test_never_past_the_lag_nor_past_what_is_final(database, latest, finalized, lag, ends):
    follow(database, lag=lag)
    observe(database, latest, finalized)
    found, _ = plan(database)
    assert (found[-1][1] if found else None) == ends


def test_a_following_stream_does_not_start_before_its_first_block(database):
    follow(database, start=150)
    observe(database, latest=420)
    assert plan(database)[0] == [(150, 200), (200, 300), (300, 400)]


def test_a_missing_head_blocks_with_the_reason(database):
    follow(database)
    assert plan(database) == ([], "rpc pool none has not shown its head yet")

    def away(_):
        raise Unavailable("rpc pool none does not answer")

    Heads(database, away).observe(Jobs(database).streams())
    assert plan(database) == ([], "rpc pool none does not answer")


def test_a_stale_head_blocks_with_the_reason_and_a_fresh_one_goes_on(database):
    follow(database)
    observe(database, latest=150)
    advance(database, 61)
    found, reason = plan(database)
    assert found == []
    assert "is 61 s old (max_head_age_seconds is 60)" in reason
    observe(database, latest=160)
    assert plan(database) == ([(0, 100)], None)


@pytest.mark.parametrize("head", [(-1, 0), (2**63, 5), (5, 2**70)])
def test_an_impossible_head_is_an_error_of_its_pool(database, head):
    follow(database)
    assert Heads(database, lambda _: head).observe(Jobs(database).streams()) == 0
    assert plan(database) == ([], "rpc pool none shows an impossible block number")


def test_a_node_that_stands_still_is_named(database):
    follow(database)
    observe(database, latest=150)
    advance(database, 100)
    observe(database, latest=150)
    assert plan(database)[1] == "rpc pool none has shown block 150 for 100 s"


def test_pools_are_asked_no_more_often_than_they_should(database):
    follow(database)
    asked = []

    def head(stream):
        asked.append(stream.rpc_pool)
        return 10, 10

    heads = Heads(database, head)
    jobs = Jobs(database)
    assert [heads.observe(jobs.streams()) for _ in range(3)] == [1, 0, 0]
    advance(database, 6)
    assert heads.observe(jobs.streams()) == 1
    assert asked == ["none", "none"]


def test_a_fixed_target_waits_for_finality_and_says_for_which_block(database):
    apply(database, job_text(streams=ONE, to_block=1000))
    observe(database, latest=999, finalized=449)
    found, reason = plan(database)
    assert found[-1] == (300, 400)
    assert reason == "waiting for block 999: the chain is final up to block 449"
    advance(database, 10)
    observe(database, latest=1200, finalized=1100)
    found, reason = plan(database)
    assert (found[-1], reason) == ((900, 1000), None)


class TestApply:
    def test_a_new_chunk_size_replans_only_what_is_not_committed(self, database, store):
        stream = apply(database, job_text(streams=ONE, to_block=600))["blocks"]
        with ingesting(database, store) as ingest:
            for start in (0, 300):
                ingest.commit(ingest.start(ingest.claim(stream, BlockRange(start, start + 100), "run", wait_seconds=0)))
            held = ingest.claim(stream, BlockRange(400, 500), "run", wait_seconds=0)
            observe(database, latest=10_000)
            plan(database)
            apply(database, job_text(streams=ONE, to_block=600, chunk=250))
            found, _ = plan(database)
            assert found == [(0, 100), (100, 250), (250, 300), (300, 400), (400, 500), (500, 600)]
            ingest.commit(ingest.start(held))
        cycle = Cycle(database, store)
        cycle.turn()
        cycle.close()
        assert Catalog(database).committed_ranges(stream.dataset_uuid) == [BlockRange(0, 600)]
        assert_registry_sound(database, store)

    def test_a_lower_start_backfills_the_new_low_end(self, database, store):
        text = job_text(streams=ONE, to_block=600)
        apply(database, text.replace("from_block: 0", "from_block: 250"))
        observe(database, latest=10_000)
        assert plan(database)[0][0] == (250, 300)
        apply(database, text)
        assert plan(database)[0][:4] == [(0, 100), (100, 200), (200, 250), (250, 300)]

    def test_bounds_that_are_drawn_in_plan_no_more_outside_and_keep_what_is_there(self, database, store):
        stream = apply(database, job_text(streams=ONE, to_block=600))["blocks"]
        observe(database, latest=10_000)
        plan(database)
        with ingesting(database, store) as ingest:
            ingest.commit(ingest.start(ingest.claim(stream, BlockRange(500, 600), "run", wait_seconds=0)))
        apply(database, job_text(streams=ONE, to_block=250))
        assert plan(database)[0] == [(0, 100), (100, 200), (200, 250), (500, 600)]
        apply(database, job_text(streams=ONE, to_block=600))
        assert plan(database)[0] == [(0, 100), (100, 200), (200, 250), (250, 300), (300, 400), (400, 500), (500, 600)]

    def test_a_stream_taken_out_is_planned_no_more_and_comes_back(self, database, store):
        apply(database, job_text(to_block=300))
        apply(database, job_text(to_block=300, streams=ONE))
        cycle = Cycle(database, store)
        cycle.turn()
        blocks, logs = cycle.jobs.streams()
        assert (logs.enabled, Catalog(database).committed_ranges(logs.dataset_uuid)) == (False, [])
        assert Catalog(database).committed_ranges(blocks.dataset_uuid) == [BlockRange(0, 300)]
        apply(database, job_text(to_block=300))
        advance(database, 10)
        cycle.turn()
        assert Catalog(database).committed_ranges(logs.dataset_uuid) == [BlockRange(0, 300)]
        cycle.close()
        assert_registry_sound(database, store)

    def test_applying_again_plans_nothing_twice(self, database):
        for _ in range(3):
            apply(database, job_text(streams=ONE, to_block=400))
            observe(database, latest=10_000)
            assert plan(database)[0] == [(0, 100), (100, 200), (200, 300), (300, 400)]
        with database.connection() as connection:
            assert connection.execute("select count(*) as n from trace.outbox").fetchone()["n"] == 4
