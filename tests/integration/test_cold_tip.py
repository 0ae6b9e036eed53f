"""Hot blocks and the planner: the tip first, when hot ranges are committed, and what is shown of the gap below them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from dagster import build_schedule_context

from tests.integration.test_planning import observe
from tests.support.clock import advance
from tests.support.cycle import Cycle
from tests.support.hot_chain import CHAIN, MadeUpChain, hashes_of
from tests.support.registry import apply, assert_registry_sound
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.main import main
from trace_dagster.config.settings import settings_from
from trace_dagster.defs.build import build_definitions
from trace_dagster.planning.cold import raise_cold_end
from trace_dagster.planning.planner import QUEUED_AHEAD_PER_STREAM, Planner
from trace_dagster.registry.hot import HotStore
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.status import job_statuses, stream_coverage

pytestmark = pytest.mark.integration

JOB = """
kind: chain_sync
name: tip
chain_id: 99
mode: {{kind: follow_head, from_block: {start}, max_head_age_seconds: 3600{keys}}}
defaults: {{rpc_pool: none, chunk_size: {chunk}, max_inflight: 4}}
streams:
  {streams}
"""
LOGS = "logs: {cryo_dataset_name: logs}"


class Tip:
    """A job that follows a made-up chain, its follower, and its planner."""

    def __init__(self, database, keys="", start=0, chunk=10, streams=LOGS):
        self.database = database
        self.jobs = Jobs(database)
        self.chain = MadeUpChain()
        self.store = HotStore(database)
        text = JOB.format(keys=f", {keys}" if keys else "", start=start, chunk=chunk, streams=streams)
        self.streams = apply(database, text)
        self.lease = None

    @property
    def stream(self):
        return next(stream for stream in self.jobs.streams() if stream.dataset_key == "logs")

    def follow(self, first, end):
        """Store the blocks ``[first, end)`` as the follower does, and what it observes of the head."""
        self.lease = self.lease or self.store.hold(CHAIN, "test", 36_000)
        self.store.store(self.lease, hashes_of(self.streams), self.chain.blocks(first, end, self.streams))
        self.store.observe(self.lease, {"latest": (end - 1, self.chain.hash(end - 1))})

    def plan(self, finalized=None):
        """Observe the head and plan a single time; return the ranges of logs that this planned."""
        before = set(self.tasks())
        if finalized is not None:
            advance(self.database, 10)
            observe(self.database, finalized + 3, finalized)
        Planner(self.database, self.jobs).plan()
        return [each for each in self.tasks() if each not in before]

    def tasks(self):
        with self.database.connection() as connection:
            rows = connection.execute(
                "select lower(block_range) as s, upper(block_range) as e from trace.tasks"
                " where state <> 'superseded' and dataset_uuid = %s order by 1",
                [self.stream.dataset_uuid],
            ).fetchall()
        return [(row["s"], row["e"]) for row in rows]


def environment(url):
    """Return the variables of a process that uses this registry."""
    return {"TRACE_POSTGRES_URL": url, "TRACE_HOME": "/nonexistent", "TRACE_CRYO_MODE": "fake"}


def commit_all(database, object_store, head):
    cycle = Cycle(database, object_store, head=head)
    try:
        cycle.turn()
    finally:
        cycle.close()


def test_history_is_planned_downwards_as_far_as_the_look_ahead_allows(database):
    tip = Tip(database, chunk=1000)
    planned = tip.plan(finalized=39_999_999)
    assert (planned[0], planned[-1]) == ((37_952_000, 37_953_000), (39_999_000, 40_000_000))
    assert len(planned) == QUEUED_AHEAD_PER_STREAM
    # the queue is full of history, and yet a new cell is planned
    assert tip.plan(finalized=40_000_999) == [(40_000_000, 40_001_000)]
    assert tip.stream.planned == BlockRange(37_952_000, 40_001_000)


def test_oldest_first_is_planned_upwards_but_for_what_is_hot(database):
    tip = Tip(database, "backfill: oldest_first", chunk=10)
    tip.follow(100_000, 100_025)
    planned = tip.plan(finalized=100_021)
    assert planned[-3:] == [(20_450, 20_460), (100_000, 100_010), (100_010, 100_020)]
    assert tip.plan(finalized=100_021) == []
    tip.follow(100_025, 100_035)
    assert tip.plan(finalized=100_031) == [(100_020, 100_030)], "although history fills the queue"


def test_hot_ranges_wait_for_their_number_and_history_does_not(database):
    tip = Tip(database, "cold_after_blocks: 35")
    tip.follow(60, 90)
    assert tip.plan(finalized=83) == [(n, n + 10) for n in range(0, 60, 10)]
    tip.follow(90, 100)
    assert tip.plan(finalized=93) == []
    assert tip.plan(finalized=95) == [(60, 70), (70, 80), (80, 90)]
    tip.follow(100, 130)
    assert tip.plan(finalized=123) == []
    assert tip.plan(finalized=126) == [(90, 100), (100, 110), (110, 120)]


def test_a_follower_that_stands_still_stops_no_commit(database):
    tip = Tip(database, "cold_cron: 0 3 * * *")
    tip.follow(60, 95)
    assert tip.plan(finalized=91) == [(n, n + 10) for n in range(0, 60, 10)]
    # it goes on: the block that the head has and the follower lacks comes in a moment
    assert tip.plan(finalized=99) == []
    # it has stopped, with a reason: what is not hot is committed, and what is hot waits for its cron
    tip.store.stop(tip.lease, "hot_max_blocks is reached")
    assert tip.plan(finalized=115) == [(90, 100), (100, 110)]
    tip.store.stop(tip.lease, None)
    assert tip.plan(finalized=129) == []
    # it has gone silent
    advance(database, 3700)
    assert tip.plan(finalized=130) == [(110, 120), (120, 130)]


def test_rows_of_another_configuration_hold_nothing_back(database):
    tip = Tip(database, "cold_cron: 0 3 * * *", start=60)
    tip.follow(60, 95)
    with database.connection() as connection:
        connection.execute("update hot.streams set config_hash = 'another'")
    assert tip.plan(finalized=91) == [(60, 70), (70, 80), (80, 90)]


def test_a_cell_is_cut_once_per_lag_and_its_rest_is_the_next_range(database, store):
    tip = Tip(database, "cold_cron: 0 3 * * *, max_cold_lag: 10", start=100, chunk=30, streams=LOGS)
    tip.follow(100, 150)
    assert tip.plan(finalized=108) == []
    assert tip.plan(finalized=109) == [(100, 110)]  # the first cell is [100, 120): 10 blocks are left of it
    assert tip.plan(finalized=118) == []
    assert tip.plan(finalized=119) == [(110, 120)]
    assert tip.plan(finalized=132) == [(120, 130)]
    assert tip.plan(finalized=148) == [(130, 140)]
    tip.follow(150, 160)
    assert tip.plan(finalized=149) == [(140, 150)]
    commit_all(database, store, 149)
    assert_registry_sound(database, store)
    coverage = stream_coverage(database, tip.jobs, tip.stream.dataset_uuid)
    assert (coverage.committed_blocks, coverage.gaps, coverage.presence.hot_blocks) == (50, (), 10)


def test_the_cron_lets_final_whole_ranges_go(database, postgres_url):
    tip = Tip(database, "cold_cron: 0 3 * * *", start=60)
    tip.follow(60, 95)
    assert tip.plan(finalized=89) == []
    (due,) = build_definitions(lambda: settings_from(environment(postgres_url))).schedules
    assert (due.name, due.cron_schedule) == ("cold__tip__at_0_3_x_x_x", "0 3 * * *")
    told = due.evaluate_tick(build_schedule_context())
    assert told.run_requests == []
    assert told.skip_message == "30 hot blocks of tip are to be committed: the planner starts their runs"
    assert tip.plan(finalized=89) == [(60, 70), (70, 80), (80, 90)]
    assert [raised.blocks for raised in raise_cold_end(database, [tip.stream])] == [0]
    assert tip.plan(finalized=99) == []


def test_by_hand(database, postgres_url):
    tip = Tip(database, "cold_after_blocks: 1000", start=60)
    tip.follow(60, 95)
    assert tip.plan(finalized=91) == []
    env = environment(postgres_url)
    said = CliRunner().invoke(main, ["cold", "--job", "tip", "--stream", "logs"], env=env)
    assert said.output == "tip: logs: 30 hot blocks, up to block 89, are committed now\n"
    assert tip.tasks() == [(60, 70), (70, 80), (80, 90)]
    said = CliRunner().invoke(main, ["cold", "--all"], env=env)
    assert said.output == "tip: logs: no final whole range waits to be committed\n"


def test_status_and_coverage_show_the_gap_between_history_and_hot_rows(database, store):
    tip = Tip(database, chunk=10)
    tip.follow(100, 125)
    tip.plan(finalized=121)
    (status,) = job_statuses(database, tip.jobs)[0].streams
    assert (status.hot_blocks, status.missing_blocks) == (25, 100)
    assert status.missing == "history: blocks 0 to 99 are not there yet"
    coverage = stream_coverage(database, tip.jobs, tip.stream.dataset_uuid)
    assert coverage.passed
    assert coverage.sentence() == (
        "0 of 120 planned blocks are committed, 25 more are hot; history: blocks 0 to 99 are not there yet"
    )
    commit_all(database, store, 121)
    (status,) = job_statuses(database, tip.jobs)[0].streams
    assert (status.committed_blocks, status.hot_blocks, status.missing) == (120, 5, None)
    assert status.seconds_left == 0.0
    assert_registry_sound(database, store)


def test_a_tick_reads_no_tasks_of_blocks_that_it_knows_to_be_planned(database):
    """40 million blocks in ranges of 1,000, the newest tenth of them done but for one range."""
    tip = Tip(database, chunk=1000)
    fill(tip, range(36_000, 40_000))
    with database.connection() as connection:
        connection.execute("delete from trace.tasks where block_range @> 38000000::bigint")
    planned = tip.plan(finalized=40_000_499)
    assert (planned[0], planned[-1]) == ((33_952_000, 33_953_000), (35_999_000, 36_000_000))
    assert tip.stream.planned == BlockRange(33_952_000, 40_000_000)
    tip.jobs.replan(tip.stream.dataset_uuid)
    with database.connection() as connection:
        connection.execute("update trace.tasks set state = 'failed' where state = 'queued'")
    planned = tip.plan(finalized=40_000_499)
    assert (planned[0], planned[-1]) == ((31_905_000, 31_906_000), (38_000_000, 38_001_000))


def fill(tip, numbers):
    """Insert a task for each of these cells of 1,000 blocks, and say that they are planned."""
    with tip.database.connection() as connection:
        connection.execute(
            "insert into trace.tasks (task_id, dataset_uuid, block_range, config_hash, state)"
            " select gen_random_uuid(), %s, int8range(n * 1000, n * 1000 + 1000), 'hash', 'failed'"
            " from generate_series(%s::bigint, %s::bigint) n",
            [tip.stream.dataset_uuid, numbers[0], numbers[-1]],
        )
        connection.execute(
            "update trace.streams set planned_from = %s, next_block = %s",
            [numbers[0] * 1000, numbers[-1] * 1000 + 1000],
        )
        connection.execute("analyze trace.tasks")
