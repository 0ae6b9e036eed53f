"""Runs are not scattered: a run group whose last run is still queued gets no further run."""

from __future__ import annotations

import pytest

from tests.support.clock import advance
from tests.support.cycle import Cycle
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange, cells
from trace_dagster.planning.dispatcher import LAUNCH_GRACE_SECONDS, Dispatcher, RunState
from trace_dagster.wakeups.driver import MAX_DELIVERIES

pytestmark = pytest.mark.integration

ONE = "blocks: {cryo_dataset_name: blocks}"
TWO_GRIDS = "blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs, chunk_size: 50}"


@pytest.fixture
def cycle(database, store):
    """Return the parts of a process."""
    made = Cycle(database, store)
    yield made
    made.close()


def plan(cycle, to_block, streams=ONE):
    """Plan up to this block, and publish the wake-ups."""
    apply(cycle.database, job_text(to_block=to_block, streams=streams))
    cycle.heads.observe(cycle.jobs.streams())
    cycle.planner.plan()
    cycle.outbox.publish(cycle.queue, limit=1000)


def keys(start, end):
    return tuple(cell.key for cell in cells(BlockRange(start, end), 100))


def test_ranges_that_become_due_while_a_run_is_queued_share_the_next_run(cycle):
    plan(cycle, 100)
    (first,) = cycle.dispatch(RunState.QUEUED)
    for end in (200, 300, 400):
        plan(cycle, end)
        assert cycle.dispatch() == []
    cycle.runs[first.batch_id] = RunState.STARTED
    (second,) = cycle.dispatch()
    assert (first.keys, second.keys) == (keys(0, 100), keys(100, 400))


def test_a_request_whose_run_does_not_exist_yet_counts_as_queued(cycle):
    plan(cycle, 100)
    (first,) = cycle.dispatch()
    del cycle.runs[first.batch_id]
    plan(cycle, 200)
    assert cycle.dispatch() == []
    advance(cycle.database, LAUNCH_GRACE_SECONDS + 1)  # it never came
    cycle.outbox.publish(cycle.queue, limit=1000)
    (again,) = cycle.dispatch()
    assert again.keys == keys(0, 200)


def test_a_long_span_is_cut_into_one_run_per_tick_without_further_wakeups(cycle):
    cycle.dispatcher = Dispatcher(cycle.database, cycle.jobs, cycle.queue, ranges_per_run=4)
    plan(cycle, 1000)
    found = [batch.keys for _ in range(4) for batch in cycle.dispatch()]
    assert found == [keys(0, 400), keys(400, 800), keys(800, 1000)]


def test_another_run_group_of_the_job_is_not_held_back(cycle):
    plan(cycle, 100, TWO_GRIDS)
    both = cycle.dispatch(RunState.QUEUED)
    assert sorted(batch.group.name for batch in both) == ["chain_sync__job", "chain_sync__job__logs"]
    other = max(both, key=lambda batch: batch.group.name)
    cycle.runs[other.batch_id] = RunState.STARTED
    plan(cycle, 200, TWO_GRIDS)
    assert [batch.group.name for batch in cycle.dispatch()] == ["chain_sync__job__logs"]


def test_wakeups_that_wait_for_a_queued_run_do_not_become_dead(cycle):
    plan(cycle, 100)
    (first,) = cycle.dispatch(RunState.QUEUED)
    plan(cycle, 200)
    for _ in range(3 * MAX_DELIVERIES):
        assert cycle.dispatch() == []
        advance(cycle.database, 70)
    with cycle.database.connection() as connection:
        assert connection.execute("select count(*) as n from trace.queue_dead").fetchone()["n"] == 0
    cycle.runs[first.batch_id] = RunState.STARTED
    assert [batch.keys for batch in cycle.dispatch()] == [keys(100, 200)]
