"""Partition keys of a long grid: all of them are in block order, and a new one is added without reading the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dagster import DagsterInstance

from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange, cells
from trace_dagster.defs.sensors import KEYS_AT_ONCE, register_keys, register_span
from trace_dagster.planning.run_groups import active_run_groups

pytestmark = pytest.mark.integration

CHUNK = 100
LONG = 2 * KEYS_AT_ONCE + 500


@pytest.fixture
def group(database):
    """Return a group of one stream with the given span."""
    (found,) = active_run_groups(apply(database, job_text(to_block=CHUNK, chunk=CHUNK)).values())
    return found


@pytest.fixture
def instance():
    """Return a Dagster instance that stores in memory."""
    with DagsterInstance.ephemeral() as made:
        yield made


def up_to(group, cell_count):
    """Return the group when this many of its cells are eligible."""
    end = cell_count * CHUNK
    moved = (replace(stream, to_block=None, eligible_end=end, next_block=end) for stream in group.streams)
    return replace(group, streams=tuple(moved))


def keys(count, first=0):
    """Return the partition keys of ``count`` cells."""
    return [cell.key for cell in cells(BlockRange(first * CHUNK, (first + count) * CHUNK), CHUNK)]


@pytest.mark.parametrize("count", [1, KEYS_AT_ONCE, KEYS_AT_ONCE + 1, LONG])
def test_a_span_is_registered_whole_and_in_order(group, instance, count):
    register_span(up_to(group, count), instance)
    assert instance.get_dynamic_partitions(group.partitions_name) == keys(count)


def test_what_was_missing_far_behind_the_end_is_added_too(group, instance):
    instance.add_dynamic_partitions(group.partitions_name, keys(200, first=100))
    register_span(up_to(group, LONG), instance)
    known = instance.get_dynamic_partitions(group.partitions_name)
    assert sorted(known) == keys(LONG)
    assert known[:200] == keys(200, first=100)


def test_a_new_range_is_registered_and_found_without_reading_the_others(group, instance, monkeypatch):
    register_span(up_to(group, LONG), instance)
    with monkeypatch.context() as patch:
        patch.delattr(DagsterInstance, "get_dynamic_partitions")
        register_span(up_to(group, LONG + 1), instance)
        positions = register_keys(group.partitions_name, keys(2, first=LONG), instance)
    assert [positions[key] for key in keys(2, first=LONG)] == [-2, -1]
    assert len(positions) <= KEYS_AT_ONCE
    assert instance.get_dynamic_partitions(group.partitions_name) == keys(LONG + 2)


def test_positions_are_those_of_dagsters_order_however_far_back(group, instance):
    register_span(up_to(group, LONG), instance)
    wanted = [keys(1)[0], *keys(3, first=LONG - 3)]
    positions = register_keys(group.partitions_name, wanted, instance)
    known = instance.get_dynamic_partitions(group.partitions_name)
    assert all(known[position] == key for key, position in positions.items())
    assert positions.keys() >= set(wanted)
