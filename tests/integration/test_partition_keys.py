"""Partition keys: in block order, added without reading the others, repaired when they are not those of the plan."""

from __future__ import annotations

import pytest
from dagster import AssetKey, DagsterInstance

from tests.support.cycle import Cycle
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange, cells
from trace_dagster.dagster_instance.storage import TraceDagsterStorage
from trace_dagster.defs.partitions import (
    KEYS_AT_ONCE,
    register_ahead,
    register_keys,
    register_span,
    repair,
    report_covered,
)
from trace_dagster.planning import grids as grids_module
from trace_dagster.planning.grids import grids

pytestmark = pytest.mark.integration

CHUNK = 100
LONG = 2 * KEYS_AT_ONCE + 500
NAME = "job__100"


@pytest.fixture
def instance(postgres_url, tmp_path):
    """Return a Dagster instance whose event log is ours."""
    storage = TraceDagsterStorage(postgres_url)
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        made._event_storage = storage.event_log_storage
        yield made


@pytest.fixture
def cycle(database, store):
    """Return the parts of a process, whose chain is far longer than its jobs."""
    made = Cycle(database, store)
    yield made
    made.close()


def keys(count, first=0):
    """Return the partition keys of ``count`` cells."""
    return [cell.key for cell in cells(BlockRange(first * CHUNK, (first + count) * CHUNK), CHUNK)]


def key(start, end):
    return BlockRange(start, end).key


def span(count):
    return BlockRange(0, count * CHUNK)


def test_order_is_by_block_whatever_was_added_first(instance):
    wanted = keys(5)
    for each in (wanted[3], wanted[0], wanted[4], wanted[2], wanted[1]):
        instance.add_dynamic_partitions(NAME, [each])
    assert instance.get_dynamic_partitions(NAME) == wanted
    for ascending in (True, False):
        found, cursor, more = [], None, True
        while more:
            page = instance.get_paginated_dynamic_partitions(NAME, 2, ascending=ascending, cursor=cursor)
            found += page.results
            cursor, more = page.cursor, page.has_more
        assert found == (wanted if ascending else wanted[::-1])


def test_partitions_that_are_no_grid_keep_dagsters_order(instance):
    instance.add_dynamic_partitions("customers", ["b", "a"])
    instance.add_dynamic_partitions("customers", ["c"])
    assert instance.get_dynamic_partitions("customers") == ["b", "a", "c"]
    page = instance.get_paginated_dynamic_partitions("customers", 2, ascending=True)
    assert (list(page.results), page.has_more) == (["b", "a"], True)
    rest = instance.get_paginated_dynamic_partitions("customers", 2, ascending=True, cursor=page.cursor)
    assert (list(rest.results), rest.has_more) == (["c"], False)


@pytest.mark.parametrize("count", [1, KEYS_AT_ONCE, KEYS_AT_ONCE + 1, LONG])
def test_a_span_is_registered_whole_and_in_order(instance, count):
    register_span(NAME, span(count), CHUNK, instance)
    assert instance.get_dynamic_partitions(NAME) == keys(count)


def test_what_was_missing_far_behind_the_end_is_added_too(instance):
    instance.add_dynamic_partitions(NAME, keys(200, first=100))
    register_span(NAME, span(LONG), CHUNK, instance)
    assert instance.get_dynamic_partitions(NAME) == keys(LONG)


def test_a_new_range_is_registered_and_found_without_reading_the_others(instance, monkeypatch):
    register_span(NAME, span(LONG), CHUNK, instance)
    with monkeypatch.context() as patch:
        patch.delattr(DagsterInstance, "get_dynamic_partitions")
        register_span(NAME, span(LONG + 1), CHUNK, instance)
        positions = register_keys(NAME, keys(2, first=LONG), instance)
    assert [positions[each] for each in keys(2, first=LONG)] == [-2, -1]
    assert len(positions) <= KEYS_AT_ONCE
    assert instance.get_dynamic_partitions(NAME) == keys(LONG + 2)


def test_positions_are_those_of_dagsters_order_however_far_back(instance):
    register_span(NAME, span(LONG), CHUNK, instance)
    wanted = [keys(1)[0], *keys(3, first=LONG - 3)]
    positions = register_keys(NAME, wanted, instance)
    known = instance.get_dynamic_partitions(NAME)
    assert all(known[position] == each for each, position in positions.items())
    assert positions.keys() >= set(wanted)


def repaired(cycle, instance, name=NAME):
    """Register and repair a grid twice, as ticks of the planner do; return its keys, equal after both."""
    found = []
    for _ in range(2):
        register_ahead(cycle.database, cycle.jobs.streams(), instance)
        for grid in grids(cycle.jobs.streams()):
            repair(cycle.database, grid, instance)
        found.append(instance.get_dynamic_partitions(name))
    assert found[0] == found[1]
    return found[0]


def work(cycle):
    """Plan and commit everything that is due."""
    for _ in range(3):
        cycle.turn()


def committed(cycle, dataset_key):
    """Return the keys of the visible ranges of a stream."""
    stream = cycle.jobs.stream_of("job", dataset_key)
    with cycle.database.connection() as connection:
        rows = connection.execute(
            "select lower(block_range) as s, upper(block_range) as e from trace.dataset_versions"
            " where dataset_uuid = %s and visible order by 1",
            [stream.dataset_uuid],
        ).fetchall()
    return [key(row["s"], row["e"]) for row in rows]


def test_deleted_keys_come_back_and_added_ones_that_hold_nothing_go(cycle, instance):
    apply(cycle.database, job_text(to_block=1000))
    work(cycle)
    assert repaired(cycle, instance) == keys(10)
    for gone in (keys(10)[0], keys(10)[4], keys(10)[9]):
        instance.delete_dynamic_partition(NAME, gone)
    instance.add_dynamic_partitions(NAME, ["typed by hand", key(0, 250), key(100, 150), key(2000, 2100), "", "0-100"])
    assert repaired(cycle, instance) == keys(10)


def test_all_keys_deleted_before_a_range_was_planned_come_back(cycle, instance):
    apply(cycle.database, job_text(to_block=300))
    cycle.heads.observe(cycle.jobs.streams())
    cycle.planner.plan()
    assert repaired(cycle, instance) == keys(3)
    for each in keys(3):
        instance.delete_dynamic_partition(NAME, each)
    assert repaired(cycle, instance) == keys(3)


def test_a_later_end_leaves_no_key_that_can_never_be_materialized(cycle, instance):
    """Check that the last, partial cell stays, and that the whole cell around it is no key: it can have no commit."""
    apply(cycle.database, job_text(to_block=950))
    work(cycle)
    assert repaired(cycle, instance)[-1] == key(900, 950)
    apply(cycle.database, job_text(to_block=1100))
    assert key(900, 1000) not in repaired(cycle, instance)
    work(cycle)
    assert repaired(cycle, instance) == [*keys(9), key(900, 950), key(950, 1000), key(1000, 1100)]
    assert repaired(cycle, instance) == committed(cycle, "blocks") == committed(cycle, "logs")


def test_a_whole_cell_that_an_earlier_version_registered_goes_away(cycle, instance):
    apply(cycle.database, job_text(to_block=950))
    work(cycle)
    apply(cycle.database, job_text(to_block=1000))
    work(cycle)
    instance.add_dynamic_partitions(NAME, [key(900, 1000)])
    assert repaired(cycle, instance) == committed(cycle, "blocks")


@pytest.mark.parametrize("is_committed", [True, False])
def test_narrower_bounds_keep_the_keys_of_what_is_committed(cycle, instance, is_committed):
    apply(cycle.database, job_text(to_block=1000))
    if is_committed:
        work(cycle)
    assert len(repaired(cycle, instance)) in (0, 10)
    instance.add_dynamic_partitions(NAME, keys(10))
    apply(cycle.database, job_text(to_block=500))
    cycle.heads.observe(cycle.jobs.streams())
    cycle.planner.plan()
    assert repaired(cycle, instance) == (keys(10) if is_committed else keys(5))


def test_another_chunk_size_keeps_the_ranges_that_are_committed(cycle, instance):
    apply(cycle.database, job_text(to_block=300))
    work(cycle)
    apply(cycle.database, job_text(to_block=1000, chunk=200))
    expected = [*keys(3), key(300, 400), key(400, 600), key(600, 800), key(800, 1000)]
    cycle.heads.observe(cycle.jobs.streams())
    cycle.planner.plan()
    assert repaired(cycle, instance, "job__200") == expected
    work(cycle)
    assert repaired(cycle, instance, "job__200") == expected == committed(cycle, "blocks")


def test_a_stream_that_was_taken_out_keeps_its_keys(cycle, instance):
    apply(cycle.database, job_text(to_block=300))
    work(cycle)
    apply(cycle.database, job_text(to_block=500, streams="blocks: {cryo_dataset_name: blocks}"))
    work(cycle)
    instance.add_dynamic_partitions(NAME, [key(700, 800)])
    assert repaired(cycle, instance) == keys(5)


def test_a_paused_job_is_repaired_too(cycle, instance):
    apply(cycle.database, job_text(to_block=300))
    work(cycle)
    cycle.jobs.set_enabled("job", False)
    instance.add_dynamic_partitions(NAME, ["x"])
    assert repaired(cycle, instance) == keys(3)


def test_a_cell_that_a_followed_chain_may_reach_is_kept(cycle, instance):
    """Check that a key is no rubbish because its blocks are not final yet."""
    apply(cycle.database, job_text(to_block=300).replace("mode: {kind: fixed_target, from_block: 0, to_block: 300}",
                                                         "mode: {kind: follow_head, from_block: 999900}"))  # fmt: skip
    work(cycle)
    instance.add_dynamic_partitions(NAME, [key(5_000_000, 5_000_100), key(5_000_000, 5_000_150)])
    assert repaired(cycle, instance) == [key(999_900, 1_000_000), key(5_000_000, 5_000_100)]


def test_a_grid_too_long_to_be_shown_ahead_has_keys_as_far_as_it_is_planned(cycle, instance, monkeypatch):
    monkeypatch.setattr(grids_module, "SHOWN_AHEAD", 5)
    apply(cycle.database, job_text(to_block=5000))
    cycle.heads.observe(cycle.jobs.streams())
    monkeypatch.setattr("trace_dagster.planning.planner.QUEUED_AHEAD_PER_STREAM", 10)
    cycle.planner.plan()
    assert repaired(cycle, instance) == keys(10)


def test_ranges_in_an_open_run_keep_their_keys(cycle, instance):
    """Check that a repair never removes the first or last key that the tags of a queued run name."""
    apply(cycle.database, job_text(to_block=300))
    cycle.heads.observe(cycle.jobs.streams())
    cycle.planner.plan()
    cycle.outbox.publish(cycle.queue, limit=1000)
    assert cycle.dispatch()
    apply(cycle.database, job_text(to_block=100))
    instance.add_dynamic_partitions(NAME, keys(3))
    assert repaired(cycle, instance) == keys(3)


def test_pages_of_streams_with_other_ranges_on_one_grid_fill_too(cycle, instance):
    """Check a stream that is added after its neighbour has committed a partial cell."""
    apply(cycle.database, job_text(to_block=950, streams="blocks: {cryo_dataset_name: blocks}"))
    work(cycle)
    apply(cycle.database, job_text(to_block=1000))
    work(cycle)
    everything = set(repaired(cycle, instance))
    assert everything == {*keys(10), key(900, 950), key(950, 1000)}
    (grid,) = grids(cycle.jobs.streams())
    for _ in range(2):
        report_covered(cycle.database, grid, instance)
    for name in ("blocks", "logs"):
        reported = instance.get_materialized_partitions(AssetKey(["99", name]))
        assert reported | set(committed(cycle, name)) == everything
        assert not reported & set(committed(cycle, name))
        events = instance.fetch_materializations(AssetKey(["99", name]), limit=100).records
        assert len(events) == len(reported), "each is reported one time"
