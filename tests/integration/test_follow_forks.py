"""The follower through reorganisations of real chains: what is stored afterwards is the node's chain, row for row."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.following import (
    eventually,
    follow_job,
    follower_process,
    following,
    hot_blocks,
    hot_rows,
    reorgs,
    stored_chain,
)
from tests.support.growing import busy_anvil, dev_node
from tests.support.nodes import running
from trace_dagster.blocks import BlockRange
from trace_dagster.devchain.chain import DevChain
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.registry.changes import OLDEST, ChangeLog

pytestmark = pytest.mark.integration


def assert_is_node(database, streams, chain, first=0):
    """Assert that hot rows are those of the devchain's blocks from ``first`` on."""
    blocks = chain.blocks[first:]
    assert stored_chain(database) == {block.number: block.hash for block in blocks}
    for stream in streams.values():
        assert hot_blocks(database, stream.dataset_uuid) == [block.number for block in blocks]
    assert [(row["block_number"], row["block_hash"]) for row in hot_rows(database, streams["blocks"])] == [
        (block.number, block.hash) for block in blocks
    ]
    assert [(row["block_number"], row["transaction_hash"]) for row in hot_rows(database, streams["transactions"])] == [
        (block.number, each.hash) for block in blocks for each in block.transactions
    ]
    logs = Counter((row["block_number"], row["block_hash"]) for row in hot_rows(database, streams["logs"]))
    assert logs == Counter({(block.number, block.hash): block.log_count for block in blocks if block.log_count})


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(1, 1), (1, 2), (2, 1), (5, 5), (9, 3), (17, 20), (64, 64), (64, 70)],
)
def test_the_branch_of_a_fork_replaces_the_old_blocks(postgres_url, database, depth, blocks):
    chain = DevChain(7, 90)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database)
        runtime.followers.tick(20)
        old = chain.blocks[-1]
        chain.reorg(depth, blocks)
        runtime.followers.tick(20)
        assert_is_node(database, streams, chain)
        (found,) = reorgs(database)
        assert (found["fork_block"], found["depth"]) == (90 - depth, depth)
        assert (found["old_hash"], found["new_hash"]) == (old.hash, chain.blocks[-1].hash)


def test_forks_follow_each_other_while_the_chain_grows(postgres_url, database):
    chain = DevChain(7, 80)
    with dev_node(chain) as node, following(postgres_url, node=node.url):
        streams = follow_job(database)
        eventually(lambda: len(stored_chain(database)) == 80)
        for depth, blocks in ((1, 2), (3, 1), (2, 2), (30, 31), (1, 1), (6, 3), (2, 9)):
            chain.reorg(depth, blocks)
            eventually(lambda: stored_chain(database).get(chain.head) == chain.blocks[-1].hash)
            chain.mine()
        for depth in (4, 2):  # the second while the first may be resolved
            chain.reorg(depth, depth + 1)
        eventually(lambda: stored_chain(database) == {block.number: block.hash for block in chain.blocks})
        assert_is_node(database, streams, chain)


def test_a_real_node_is_followed_through_forks(postgres_url, database):
    with busy_anvil(3) as node:
        for _ in range(12):
            node.mine()
        with following(postgres_url, node=node.url):
            follow_job(database, chain_id=31337)
            for depth, blocks in ((2, 3), (5, 5), (4, 2)):
                eventually(lambda: stored_chain(database).get(node.links(0)[-1].number) == node.links(0)[-1].hash)
                node.reorg(depth, blocks)
            eventually(lambda: stored_chain(database) == {each.number: each.hash for each in node.links(0)})


def test_a_fork_during_a_downtime_below_the_stored_head_is_found(postgres_url, database):
    chain = DevChain(7, 60)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database)
        runtime.followers.tick(20)
        chain.reorg(10, 10)
        chain.grow(200)
        runtime.followers.tick(20)
        assert_is_node(database, streams, chain)
        (found,) = reorgs(database)
        assert (found["fork_block"], found["depth"]) == (50, 10)


def test_a_node_that_is_behind_takes_nothing_away(postgres_url, database):
    chain = DevChain(7, 60)
    behind = DevChain(7, 40)
    with dev_node(chain) as node, dev_node(behind) as late:
        with follower_process(postgres_url, node=node.url) as runtime:
            streams = follow_job(database)
            runtime.followers.tick(20)
        with follower_process(postgres_url, node=late.url) as runtime:
            runtime.followers.tick(2)
        assert_is_node(database, streams, chain)
        assert reorgs(database) == []


def test_a_lower_branch_is_not_adopted_while_an_endpoint_has_the_stored_head(postgres_url, database):
    chain = DevChain(7, 60)
    other = DevChain(7, 60)
    other.reorg(9, 5)
    with dev_node(chain) as node, dev_node(other) as forked:
        with follower_process(postgres_url, node=node.url) as runtime:
            streams = follow_job(database)
            runtime.followers.tick(20)
        with follower_process(postgres_url, node=f"{forked.url},{node.url}") as runtime:
            runtime.followers.tick(3)
            assert reorgs(database) == []
            assert_is_node(database, streams, chain)
            other.grow(61)  # now it is the longer one
            runtime.followers.tick(10)
            assert_is_node(database, streams, other)


def test_a_chain_that_was_made_anew_replaces_all_of_the_old_one(postgres_url, database):
    for seed, blocks in ((7, 90), (8, 50), (9, 400)):
        chain = DevChain(seed, blocks)
        with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
            streams = follow_job(database)
            runtime.followers.tick(20)
            assert_is_node(database, streams, chain)


def commit(runtime, streams, *ranges):
    """Commit ranges of every stream."""
    for stream in streams.values():
        for start, end in ranges:
            work = runtime.ingester.claim(stream, BlockRange(start, end), "run", wait_seconds=0)
            assert isinstance(work, ClaimedRange), work
            runtime.ingester.commit(runtime.ingester.start(work))


def test_a_chain_made_anew_below_all_hot_blocks_is_proven_by_committed_versions(postgres_url, database, s3):
    chain = DevChain(7, 400)
    with dev_node(chain) as node, running(postgres_url, s3, node=node.url) as runtime:
        streams = follow_job(database, chunk=100)
        commit(runtime, streams, (0, 100), (100, 200))
        runtime.followers.tick(20)
        assert min(stored_chain(database)) == 300
    with dev_node(DevChain(7, 150)) as behind, follower_process(postgres_url, node=behind.url) as runtime:
        runtime.followers.tick(3)
        assert reorgs(database) == []
        assert max(stored_chain(database)) == 399
    anew = DevChain(8, 130)
    with dev_node(anew) as node, follower_process(postgres_url, node=node.url) as runtime:
        runtime.followers.tick(20)
        assert_is_node(database, streams, anew, first=99)  # those below are ingested again
        (found,) = reorgs(database)
        assert (found["old_head"], found["new_head"], found["versions"]) == (399, 129, 6)


def test_a_fork_deeper_than_the_hot_rows_takes_committed_ranges_out_of_the_view(postgres_url, database, s3):
    chain = DevChain(7, 130)
    with dev_node(chain) as node, running(postgres_url, s3, node=node.url) as runtime:
        streams = follow_job(database, chunk=40)
        commit(runtime, streams, (0, 40), (40, 80), (80, 120))
        runtime.followers.tick(20)
        assert min(stored_chain(database)) == 120
        chain.reorg(70, 75)
        runtime.followers.tick(20)
        (found,) = reorgs(database)
        assert (found["fork_block"], found["versions"]) == (40, 6)
        assert stored_chain(database)[chain.head] == chain.blocks[-1].hash
        assert all(chain.blocks[number].hash == each for number, each in stored_chain(database).items())
        changes, _ = ChangeLog(database).after(OLDEST)
        invalidated = {(each.dataset_uuid, each.block_range.start) for each in changes if each.kind == "invalidated"}
        for stream in streams.values():
            assert {(stream.dataset_uuid, 40), (stream.dataset_uuid, 80)} <= invalidated
            assert (stream.dataset_uuid, 0) not in invalidated
