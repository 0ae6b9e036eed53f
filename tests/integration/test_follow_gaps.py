"""The newest block is stored before the blocks below it: what is stored is always of its chain, also while blocks that
were orphaned during a downtime lie below a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.following import follow_job, follower_process, hot_blocks, hot_rows, reorgs, stored_chain
from tests.support.growing import dev_node
from tests.support.nodes import counting
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import application
from trace_dagster.registry.connection import Database
from trace_dagster.registry.hot import HotStore

pytestmark = pytest.mark.integration


@contextmanager
def looking_at(database: Database) -> Iterator[list[dict[int, bytes]]]:
    """Yield the stored chain after each transaction of the followers of this process."""
    seen = []
    kept = {name: getattr(HotStore, name) for name in ("store", "replace")}

    def looked(write):
        def change(*args, **options):
            result = write(*args, **options)
            seen.append(stored_chain(database))
            return result

        return change

    for name, write in kept.items():
        setattr(HotStore, name, looked(write))
    try:
        yield seen
    finally:
        for name, write in kept.items():
            setattr(HotStore, name, write)


def numbered(chain):
    return {block.number: block.hash for block in chain.blocks}


def assert_is_node(database, streams, chain):
    """Assert that the hot blocks of each stream are those of the node."""
    assert stored_chain(database) == numbered(chain)
    for stream in streams.values():
        assert hot_blocks(database, stream.dataset_uuid) == list(numbered(chain))
    found = [(row["block_number"], row["block_hash"]) for row in hot_rows(database, streams["blocks"])]
    assert found == list(numbered(chain).items())


@pytest.mark.parametrize(("depth", "blocks"), [(1, 40), (30, 400), (89, 110)])
def test_orphans_of_a_downtime_leave_with_the_newest_block(postgres_url, database, depth, blocks):
    chain = DevChain(7, 90)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database)
        runtime.followers.tick(20)
        chain.reorg(depth, blocks)
        with looking_at(database) as seen:
            runtime.followers.tick(20)
        assert max(seen[0]) == chain.head
        assert all(each.items() <= numbered(chain).items() for each in seen)
        assert_is_node(database, streams, chain)
        (found,) = reorgs(database)
        assert (found["fork_block"], found["depth"], found["new_head"]) == (90 - depth, depth, chain.head)


_DOWNTIME = st.tuples(st.integers(0, 90), st.integers(1, 60), st.booleans())
"""How many blocks are orphaned, how much the chain grows, and whether the follower has time to fill the gap."""


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_DOWNTIME, min_size=2, max_size=4))
def test_after_any_downtimes_all_that_is_stored_is_of_the_chain_of_the_newest_block(postgres_url, database, downtimes):
    chain = DevChain(7, 100)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database)
        forget(database)
        for depth, growth, has_time in [(0, 1, True), *downtimes, (0, 1, True)]:
            if depth:
                chain.reorg(depth, depth + growth)
            else:
                chain.grow(len(chain.blocks) + growth)
            with looking_at(database) as seen:
                runtime.followers.tick(20 if has_time else 0.1)
            assert all(each.items() <= numbered(chain).items() for each in seen)
            assert max(seen[0]) == chain.head
        assert_is_node(database, streams, chain)


def forget(database):
    """Remove all that followers have stored."""
    with database.connection() as connection:
        connection.execute(
            "truncate hot.chain, hot.heads, hot.reorgs, hot.streams, hot.blocks, hot.transactions, hot.logs"
        )


def test_the_newest_block_comes_before_a_gap_if_its_node_has_the_stored_head(postgres_url, database):
    chain = DevChain(7, 90)
    with counting(application(chain)) as (url, calls), follower_process(postgres_url, node=url) as runtime:
        streams = follow_job(database)
        runtime.followers.tick(20)
        chain.grow(300)
        calls.clear()
        with looking_at(database) as seen:
            runtime.followers.tick(20)
        assert seen[0].keys() == {*range(90), 299}
        assert calls["eth_getBlockReceipts"] == 210
        assert reorgs(database) == []
        assert_is_node(database, streams, chain)


def test_headers_that_do_not_link_to_a_stored_block_take_nothing_away(postgres_url, database):
    chain, other = DevChain(7, 60), DevChain(7, 60)
    other.reorg(9, 90)
    with dev_node(chain) as node, dev_node(other) as forked:
        with follower_process(postgres_url, node=node.url) as runtime:
            streams = follow_job(database)
            runtime.followers.tick(20)
        other.blocks[70:80] = other.blocks[71:81]  # a node that has lost its place
        with follower_process(postgres_url, node=forked.url) as runtime:
            said = runtime.followers.tick(2)
        assert "head 59" in said
        assert reorgs(database) == []
        assert_is_node(database, streams, chain)
        chain.grow(200)
        with follower_process(postgres_url, node=f"{forked.url},{node.url}") as runtime:
            runtime.followers.tick(5)  # the other endpoint is asked next
        stored = stored_chain(database)
        assert max(stored) > 59
        assert stored.items() <= numbered(chain).items()
        assert reorgs(database) == []
