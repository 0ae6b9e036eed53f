"""Time left: computed from the rate of recent commits by the database's clock, and reported to the UI."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dagster import AssetObservation, DagsterInstance, SkipReason, build_sensor_context

from tests.support.clock import advance
from tests.support.nodes import environment
from tests.support.registry import apply, ingesting, job_text, ranges
from trace_dagster.cli.render import status_table
from trace_dagster.config.settings import settings_from
from trace_dagster.defs.progress import OBSERVED_SECONDS, progress_observations
from trace_dagster.defs.sensors import reconciler_sensor
from trace_dagster.defs.streams import asset_key
from trace_dagster.planning.heads import Heads
from trace_dagster.planning.planner import Planner
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.progress import RECENT_COMMITS, RECENT_SECONDS, recent_rates, seconds_left
from trace_dagster.registry.queries import query
from trace_dagster.registry.status import job_statuses, stream_coverages
from trace_dagster.runtime import Runtime

pytestmark = pytest.mark.integration
ONE = "blocks: {cryo_dataset_name: blocks}"
NOW = 1_700_000_000.0


@pytest.fixture
def stream(database):
    """Plan a stream of a thousand blocks in ranges of a hundred."""
    apply(database, job_text(streams=ONE))
    return planned(database, head=5000)


def planned(database, head):
    jobs = Jobs(database)
    Heads(database, lambda _: (head, head)).observe(jobs.streams())
    Planner(database, jobs).plan()
    return jobs.streams()[0]


def commit(database, store, stream, count, first=0, seconds=10.0):
    """Commit ranges one after the other, each in the given seconds."""
    with ingesting(database, store) as ingest:
        for block_range in ranges(stream, first + count)[first:]:
            work = ingest.claim(stream, block_range, "run", wait_seconds=5)
            advance(database, seconds / 2)
            ingest.commit(ingest.start(work))
            advance(database, seconds / 2)


def status(database):
    (job,) = job_statuses(database, Jobs(database))
    return job, job.streams[0]


def test_nothing_is_said_before_the_first_commit(database, stream):
    job, found = status(database)
    assert (found.recent_blocks_per_second, found.seconds_left, job.seconds_left) == (None, None, None)


def test_one_commit_tells_the_rate_since_it_was_begun(database, store, stream):
    commit(database, store, stream, 1, seconds=20)
    job, found = status(database)
    assert found.recent_blocks_per_second == pytest.approx(5, rel=0.1)
    assert found.seconds_left == pytest.approx(900 / 5, rel=0.1)
    assert job.seconds_left == found.seconds_left


def test_an_idle_stream_gets_slower_and_then_nothing_is_said(database, store, stream):
    commit(database, store, stream, 5)
    assert status(database)[1].seconds_left == pytest.approx(50, rel=0.1)
    advance(database, 50)
    assert status(database)[1].seconds_left == pytest.approx(100, rel=0.1)
    advance(database, RECENT_SECONDS)
    found = status(database)[1]
    assert (found.recent_blocks_per_second, found.seconds_left) == (None, None)
    assert found.blocks_per_second is not None


def test_old_commits_do_not_count_once_there_are_newer_ones(database, store, stream):
    commit(database, store, stream, 2, seconds=1000)
    advance(database, RECENT_SECONDS)
    commit(database, store, stream, 4, first=2, seconds=10)
    assert status(database)[1].recent_blocks_per_second == pytest.approx(10, rel=0.1)


def test_a_finished_stream_has_nothing_left(database, store, stream):
    commit(database, store, stream, 10)
    job, found = status(database)
    assert (found.done, found.seconds_left, job.seconds_left) == (True, 0.0, 0.0)


def test_a_paused_job_and_one_that_waits_for_its_chain_say_no_time(database, store):
    apply(database, job_text(streams=ONE))
    stream = planned(database, head=499)
    commit(database, store, stream, 2)
    found = status(database)[1]
    assert "waiting for block 999" in found.blocked_reason
    assert (found.recent_blocks_per_second > 0, found.seconds_left) == (True, None)
    moving = replace(stream, blocked_reason=None)
    assert seconds_left(moving, 200, 10.0) == 80.0
    assert seconds_left(replace(moving, job_enabled=False), 200, 10.0) is None
    assert seconds_left(replace(moving, halted_reason="why"), 200, 10.0) is None


def test_a_stream_that_follows_is_timed_to_the_last_full_cell(stream):
    following = replace(stream, to_block=None, from_block=100, eligible_end=999)
    assert seconds_left(following, 300, 10.0) == 50.0
    assert seconds_left(following, 800, None) == 0.0
    assert seconds_left(replace(following, eligible_end=None), 0, 10.0) is None


def test_a_job_takes_as_long_as_its_slowest_stream_and_nobody_knows_while_one_is_unknown(database, store):
    apply(database)
    stream = planned(database, head=5000)
    commit(database, store, stream, 2)
    assert status(database)[0].seconds_left is None
    other = Jobs(database).streams()[1]
    commit(database, store, other, 2, seconds=100)
    job, _ = status(database)
    fast, slow = sorted(each.seconds_left for each in job.streams)
    assert fast < slow == job.seconds_left


def test_the_table_says_how_long_it_takes(database, store, stream, capsys):
    commit(database, store, stream, 1, seconds=800)
    status_table(job_statuses(database, Jobs(database)))
    printed = capsys.readouterr().out
    assert printed.count("~2 hours left") == 2


def test_only_recent_commits_are_read_by_index(database, stream):
    """The plan is a bounded scan of an index, not of the table, for any number of versions."""
    with database.transaction() as session:
        session.execute_raw("set local enable_seqscan = off")
        session.execute_raw("set local enable_sort = off")
        values = {"dataset_uuids": [stream.dataset_uuid], "commits": RECENT_COMMITS, "seconds": RECENT_SECONDS}
        rows = session.connection.execute("explain " + query("recent_commits"), values).fetchall()
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    assert "Index Scan Backward using versions_by_commit" in plan
    assert "Limit" in plan
    assert "Seq Scan" not in plan


def test_the_rate_is_that_of_each_dataset_asked_for(database, store):
    streams = apply(database)
    planned(database, head=5000)
    commit(database, store, streams["logs"], 3)
    with database.snapshot() as session:
        rates = recent_rates(session, [stream.dataset_uuid for stream in streams.values()])
    assert list(rates) == [streams["logs"].dataset_uuid]


def observed(database, told, now):
    """Return the observations of one tick: (metadata of each one, the state that the next tick compares with)."""
    events, told = progress_observations(database, stream_coverages(database, Jobs(database)), told, now)
    return [{name: each.value for name, each in event.metadata.items()} for event in events], told


def test_the_ui_is_told_once_a_minute_and_only_of_what_moved(database, store, stream):
    assert observed(database, {}, NOW)[0] != []
    told = observed(database, {}, NOW)[1]
    commit(database, store, stream, 4)
    assert observed(database, told, NOW + OBSERVED_SECONDS - 1) == ([], told)
    (figures,), told = observed(database, told, NOW + OBSERVED_SECONDS)
    assert (figures["committed_blocks"], figures["total_blocks"], figures["percent"]) == (400, 1000, 40.0)
    assert figures["blocks_per_second"] == pytest.approx(10, rel=0.1)
    assert figures["seconds_left"] == pytest.approx(60, rel=0.1)
    assert observed(database, told, NOW + 10 * OBSERVED_SECONDS) == ([], told)


def test_a_stream_without_a_commit_is_observed_without_made_up_figures(database, stream):
    (figures,), _ = observed(database, {}, NOW)
    assert figures == {"committed_blocks": 0, "total_blocks": 1000, "percent": 0.0}


def test_blocks_beyond_the_bounds_are_no_progress(database, store, stream):
    commit(database, store, stream, 10)
    narrowed = [
        replace(each, stream=replace(each.stream, to_block=500)) for each in stream_coverages(database, Jobs(database))
    ]
    (event,), _ = progress_observations(database, narrowed, {}, NOW)
    assert event.metadata["percent"].value == 100.0


def test_a_tick_of_the_reconciler_observes_and_the_next_one_has_nothing_to_say(postgres_url, s3, database, stream):
    variables = {**environment(postgres_url, s3), "TRACE_CRYO_MODE": "fake"}
    runtime = Runtime(settings_from(variables))
    sensor = reconciler_sensor(lambda: runtime)
    try:
        with DagsterInstance.ephemeral() as instance:
            first = sensor(build_sensor_context(instance=instance))
            again = sensor(build_sensor_context(instance=instance, cursor=first.cursor))
    finally:
        runtime.close()
    (observation,) = [event for event in first.asset_events if isinstance(event, AssetObservation)]
    assert observation.asset_key == asset_key(stream.chain_id, "blocks")
    assert isinstance(again, SkipReason)
