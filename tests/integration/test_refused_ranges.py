"""Ranges that are refused because the follower has stored blocks of another fork, and has not looked again yet."""

from __future__ import annotations

import pytest

from tests.support.following import follow_job, stored_chain
from tests.support.growing import dev_node
from tests.support.nodes import running
from trace_dagster.blocks import BlockRange
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import NotYet

pytestmark = pytest.mark.integration


def test_a_refused_range_waits_for_the_follower_without_using_up_its_attempts(postgres_url, database, s3):
    chain = DevChain(7, 130)
    span = BlockRange(80, 120)
    with dev_node(chain) as node, running(postgres_url, s3, node=node.url) as runtime:
        stream = follow_job(database, chunk=40)["logs"]
        runtime.followers.tick(20)
        assert min(stored_chain(database)) == 120
        chain.reorg(30, 40)
        waits = []
        for _ in range(6):
            work = runtime.ingester.claim(stream, span, "run", wait_seconds=0)
            with pytest.raises(NotYet, match="the follower stored"):
                runtime.ingester.commit(runtime.ingester.start(work))
            task = task_of(database, stream.task_id(span))
            assert (task["state"], task["failures"]) == ("queued", 0)
            assert "the follower stored" in task["error"]
            waits.append(task["wait"])
        assert waits[-1] > 2 * waits[0]
        runtime.followers.tick(20)
        work = runtime.ingester.claim(stream, span, "run", wait_seconds=0)
        runtime.ingester.commit(runtime.ingester.start(work))
        assert task_of(database, stream.task_id(span))["state"] == "committed"
        assert stored_chain(database).items() <= {each.number: each.hash for each in chain.blocks}.items()


def task_of(database, task_id):
    """Return a task, and how many seconds it waits."""
    with database.connection() as connection:
        return connection.execute(
            "select state, failures, error, extract(epoch from not_before - updated_at)::float8 as wait"
            " from trace.tasks where task_id = %s",
            [task_id],
        ).fetchone()
