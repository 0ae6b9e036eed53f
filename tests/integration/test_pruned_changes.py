"""The reconciler deletes old changes and reorganisations: once an hour, and no more than some per tick."""

from __future__ import annotations

from contextlib import closing

import pytest
from dagster import DagsterInstance, SensorResult, build_sensor_context

from tests.support.clock import advance
from tests.support.nodes import environment
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.config.settings import settings_from
from trace_dagster.defs.sensors import reconciler_sensor
from trace_dagster.registry.changes import OLDEST, ChangeLog, record_change
from trace_dagster.runtime import Runtime

pytestmark = pytest.mark.integration

MONTH = 31 * 86_400.0


@pytest.fixture
def kept(database):
    """Return a function that gives the first blocks of all changes, and the reorganisations by chain and block."""

    def look():
        changes, _ = ChangeLog(database).after(OLDEST)
        with database.connection() as connection:
            rows = connection.execute("select chain_id, fork_block from hot.reorgs order by reorg_id").fetchall()
        return [each.block_range.start for each in changes], [(row["chain_id"], row["fork_block"]) for row in rows]

    return look


@pytest.fixture
def write(database):
    """Return a function that records a change per block, and reorganisations by chain and block."""
    dataset = apply(database, job_text(streams="blocks: {cryo_dataset_name: blocks}"))["blocks"].dataset_uuid

    def written(blocks, reorgs=()):
        with database.transaction() as session:
            for block in blocks:
                record_change(session, "committed", dataset, BlockRange(block, block + 1))
        with database.connection() as connection:
            for reorg in reorgs:
                connection.execute(
                    "insert into hot.reorgs (org_id, chain_id, fork_block, old_head, new_head, new_hash, depth)"
                    " select org_id, %s, %s, 9, 9, sha256(''), 1 from trace.jobs",
                    reorg,
                )

    return written


@pytest.fixture
def tick(postgres_url, s3, database, monkeypatch):
    """Return a function that runs a tick of the sensor at an hour, with the cursor of the tick before."""
    runtime = Runtime(settings_from({**environment(postgres_url, s3), "TRACE_CRYO_MODE": "fake"}))
    sensor, cursor = reconciler_sensor(lambda: runtime), None

    def ticked(hour):
        nonlocal cursor
        monkeypatch.setattr("trace_dagster.defs.sensors.time.time", lambda: 1_700_000_000.0 + hour * 3600)
        context = build_sensor_context(instance=instance, cursor=cursor)
        result = sensor(context)
        cursor = result.cursor if isinstance(result, SensorResult) else context.cursor

    with DagsterInstance.ephemeral() as instance, closing(runtime):
        yield ticked


def test_old_changes_and_reorganisations_go_once_an_hour(database, write, kept, tick, monkeypatch):
    monkeypatch.setattr("trace_dagster.registry.retention._CHANGES_AT_ONCE", 2)
    monkeypatch.setattr("trace_dagster.defs.retention.CHANGES_PER_TICK", 4)
    write(range(5), [(1, 3), (2, 4), (1, 5)])
    tick(0)
    advance(database, MONTH)
    write([10], [(3, 6)])
    tick(0.9)
    assert kept() == ([0, 1, 2, 3, 4, 10], [(1, 3), (2, 4), (1, 5), (3, 6)])
    tick(1.1)
    assert kept() == ([4, 10], [(2, 4), (1, 5), (3, 6)]), "so many per tick; the newest reorganisation of a chain stays"
    tick(1.101)
    assert kept()[0] == [10]
    advance(database, MONTH)
    tick(2)
    assert kept()[0] == [10]
    tick(2.2)
    assert kept() == ([], [(2, 4), (1, 5), (3, 6)])
