"""Symbolic bounds are resolved a single time: what else is applied with them does not move them."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from trace_dagster.config.chain_sync import parse
from trace_dagster.registry.jobs import Bounds, Jobs

pytestmark = pytest.mark.integration

JOB = """
kind: chain_sync
name: tip
chain_id: 99
mode: {{kind: {mode}}}
defaults: {{rpc_pool: node, chunk_size: 100}}
streams: {{logs: {{cryo_dataset_name: logs}}}}
"""
FIRST = "follow_head, from_block: latest-1000"


@pytest.mark.parametrize(
    ("mode", "bounds"),
    [
        (FIRST, Bounds(5000, None)),
        (f"{FIRST}, backfill: oldest_first, max_cold_lag: 50", Bounds(5000, None)),
        ("follow_head, from_block: latest-2000", None),
        ("fixed_target, from_block: latest-1000, to_block: finalized", None),
    ],
)
def test_a_start_that_is_written_the_same_stays(database, mode, bounds):
    jobs = Jobs(database)
    jobs.apply(parse(JOB.format(mode=FIRST)), Bounds(5000, None))
    assert jobs.resolved(parse(JOB.format(mode=mode))) == bounds


def test_a_start_of_an_earlier_version_stays(database):
    jobs = Jobs(database)
    jobs.apply(parse(JOB.format(mode=FIRST)), Bounds(5000, None))
    with database.connection() as connection:
        before = {"kind": "follow_head", "from_block": "latest-1000", "tail_lag": 0}
        connection.execute("update trace.jobs set spec = jsonb_set(spec, '{chain_sync,mode}', %s)", [Jsonb(before)])
    assert jobs.resolved(parse(JOB.format(mode=FIRST))) == Bounds(5000, None)
