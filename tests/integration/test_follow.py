"""The follower over real chains and a real registry: newest first, the rows of cold ranges, one holder at a time."""

from __future__ import annotations

import threading
import time

import pytest

from tests.support.anvil import running_chain
from tests.support.anvil_node import CHAIN_ID as ANVIL_CHAIN
from tests.support.following import (
    NO_GATEWAY,
    eventually,
    follow_job,
    follower_process,
    following,
    hot_blocks,
    hot_rows,
    reason,
    stored_chain,
)
from tests.support.growing import dev_node
from tests.support.nodes import counting
from trace_dagster.blocks import BlockRange
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.devchain.server import application
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.registry.hot import HotStore
from trace_dagster.registry.jobs import Jobs
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo()
    yield opened
    opened.close()


def cold_rows(engine, stream, span, url, chain_id):
    """Return the rows that Cryo gives for a range, proven and cast as a commit does."""
    evidence = EvidenceCollector(stream.dataset.name, chain_id, None, None, span)
    pool = RpcPool("node", (url,))
    extractor = Extractor(engine)
    try:
        pieces = extractor.start(RangeRequest(stream.dataset, span, chain_id, stream.columns, "full", pool, evidence))
        return [row for piece in pieces for row in piece.table.to_pylist()]
    finally:
        extractor.close()


def caught_up(runtime, seconds=20.0):
    """Follow until nothing is missing; return what was said."""
    return runtime.followers.tick(seconds)


def test_hot_rows_are_those_of_cold_ranges(postgres_url, database, engine):
    chain = DevChain(7, 130)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database, chunk=50)
        caught_up(runtime)
        border = (chain.finalized + 1) // 50 * 50
        span = BlockRange(border, 130)
        for stream in streams.values():
            assert hot_blocks(database, stream.dataset_uuid) == list(range(border, 130))
            assert hot_rows(database, stream) == cold_rows(engine, stream, span, node.url, CHAIN_ID)
        assert stored_chain(database) == {each.number: each.hash for each in chain.blocks[border:]}


def test_hot_rows_of_a_real_node_are_those_of_cold_ranges(postgres_url, database, engine):
    with running_chain() as anvil, follower_process(postgres_url, node=anvil.url) as runtime:
        streams = follow_job(database, chain_id=ANVIL_CHAIN, chunk=40_000)
        caught_up(runtime)
        for stream in streams.values():
            assert hot_blocks(database, stream.dataset_uuid) == list(range(anvil.head + 1))
            rows = hot_rows(database, stream)
            assert rows == cold_rows(engine, stream, BlockRange(0, anvil.head + 1), anvil.url, ANVIL_CHAIN)


def test_the_newest_block_comes_first_and_takes_two_calls(postgres_url, database):
    chain = DevChain(7, 300)
    with counting(application(chain)) as (url, calls), follower_process(postgres_url, node=url) as runtime:
        streams = follow_job(database, chunk=100)
        follower = runtime.followers
        stored, started = [], time.monotonic()
        write = HotStore.store

        def seen(self, lease, configs, blocks, **limits):
            write(self, lease, configs, blocks, **limits)
            stored.append([each.number for each in blocks])

        HotStore.store = seen
        try:
            follower.tick(20)
        finally:
            HotStore.store = write
        assert stored[0] == [299]
        assert [each for some in stored for each in reversed(some)] == list(reversed(range(200, 300)))
        assert hot_blocks(database, streams["logs"].dataset_uuid) == list(range(200, 300))
        assert calls["eth_getBlockReceipts"] == 100
        assert calls["eth_chainId"] <= 4  # once, and where the latency of the endpoint is measured
        others = sum(calls.values()) - calls["eth_getBlockReceipts"] - calls["eth_chainId"]
        # the blocks, what is asked at the start, and at most ten heads and two tags a second
        assert others <= 110 + 12 * (time.monotonic() - started)


def test_new_jobs_are_taken_up_and_blocks_appear_as_the_chain_grows(postgres_url, database):
    chain = DevChain(7, 60)
    with dev_node(chain) as node, following(postgres_url, node=node.url):
        first = follow_job(database, datasets=("logs",), name="first", chunk=1000)["logs"]
        eventually(lambda: hot_blocks(database, first.dataset_uuid) == list(range(60)))
        for _ in range(3):
            block = chain.mine()
            eventually(lambda block=block: stored_chain(database).get(block.number) == block.hash)
        second = follow_job(database, datasets=("blocks", "transactions"), name="second", chunk=1000)
        for stream in second.values():
            eventually(lambda stream=stream: hot_blocks(database, stream.dataset_uuid) == list(range(63)))
        Jobs(database).set_enabled("first", False)
        time.sleep(1)
        chain.mine()
        eventually(lambda: 63 in hot_blocks(database, second["blocks"].dataset_uuid))
        assert hot_blocks(database, first.dataset_uuid) == list(range(63))


def test_one_holder_follows_at_a_time(postgres_url, database):
    chain = DevChain(7, 40)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as sensor:
        follow_job(database)
        with following(postgres_url, node=node.url):
            eventually(lambda: 39 in stored_chain(database))
            assert "another process" in sensor.followers.tick(1)
            chain.mine()
            eventually(lambda: 40 in stored_chain(database))
        chain.mine()
        assert "stored" in sensor.followers.tick(5)  # the service gave its lease back
        assert stored_chain(database) == {each.number: each.hash for each in chain.blocks}


def test_a_gap_after_a_downtime_is_filled_below_the_newest_block(postgres_url, database):
    chain = DevChain(7, 50)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database)
        caught_up(runtime)
        chain.grow(150)
        caught_up(runtime)
        assert stored_chain(database) == {each.number: each.hash for each in chain.blocks}
        assert hot_blocks(database, streams["logs"].dataset_uuid) == list(range(150))


def test_it_stops_where_there_is_no_room_and_goes_on_when_there_is(postgres_url, database):
    chain = DevChain(7, 90)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database, chunk=50, hot_max_blocks=100)
        for blocks in range(90, 171, 10):
            chain.grow(blocks)
            caught_up(runtime)
        assert hot_blocks(database, streams["logs"].dataset_uuid) == list(range(50, 150))
        assert "logs" in reason(database)
        assert "hot_max_blocks=100" in reason(database)
        assert 169 in stored_chain(database)
        lease = eventually(lambda: HotStore(database).hold(CHAIN_ID, "test", 1))
        for stream in streams.values():
            HotStore(database).drop(lease, stream.dataset_uuid, "made room")
        HotStore(database).release(lease)
        caught_up(runtime)
        assert hot_blocks(database, streams["logs"].dataset_uuid) == list(range(150, 170))
        assert reason(database) is None


def test_a_failing_node_is_named_and_passed(postgres_url, database):
    chain = DevChain(7, 40)
    with dev_node(chain) as node, follower_process(postgres_url, node="http://127.0.0.1:9," + node.url) as runtime:
        follow_job(database)
        caught_up(runtime)
        assert 39 in stored_chain(database)
    with follower_process(postgres_url, node="http://127.0.0.1:9") as runtime:
        said = runtime.followers.tick(4)
        assert "node#1" in said
        assert "node#1" in reason(database)


def test_endpoints_of_a_quorum_must_show_the_same_block(postgres_url, database):
    chain, other = DevChain(7, 40), DevChain(7, 40)
    other.reorg(1, 1)
    quorum = {**NO_GATEWAY, "TRACE_RPC_POOL_NODE_QUORUM": "2"}
    with dev_node(chain) as node, dev_node(other) as second:
        with follower_process(postgres_url, quorum, node=f"{node.url},{second.url}") as runtime:
            follow_job(database)
            assert "give other rows" in runtime.followers.tick(3)
            assert stored_chain(database) == {}
        with follower_process(
            postgres_url, quorum, node=f"{node.url},{node.url.replace('127.0.0.1', 'localhost')}"
        ) as it:
            caught_up(it)
            assert stored_chain(database) == {each.number: each.hash for each in chain.blocks}


def test_rows_of_other_columns_are_dropped_and_filled_again(postgres_url, database):
    chain = DevChain(7, 40)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        stream = follow_job(database, datasets=("logs",))["logs"]
        caught_up(runtime)
        columns = tuple(each for each in stream.columns if each != "data")
        with database.connection() as connection:  # as `apply --rebuild` does
            connection.execute(
                "update trace.streams set columns = %s, config_hash = 'other' where dataset_uuid = %s",
                [list(columns), stream.dataset_uuid],
            )
        (changed,) = Jobs(database).streams()
        caught_up(runtime)
        assert hot_blocks(database, stream.dataset_uuid) == list(range(40))
        assert len(hot_rows(database, changed)) == sum(each.log_count for each in chain.blocks)
        with database.connection() as connection:
            row = connection.execute("select count(data) as n, min(config_hash) as config from hot.logs, hot.streams")
            assert row.fetchone() == {"n": 0, "config": "other"}


def test_the_chain_is_compared_with_the_node_when_a_commit_asks_for_it(postgres_url, database):
    chain = DevChain(7, 60)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url) as runtime:
        streams = follow_job(database)
        caught_up(runtime)
        with database.connection() as connection:
            connection.execute("update hot.followers set recheck_from = 30")
        caught_up(runtime)
        assert hot_blocks(database, streams["logs"].dataset_uuid) == list(range(60))
        with database.connection() as connection:
            assert connection.execute("select recheck_from from hot.followers").fetchone()["recheck_from"] is None
            assert connection.execute("select count(*) as n from hot.reorgs").fetchone()["n"] == 0


def test_heads_that_a_node_pushes_are_followed_through_the_gateway(postgres_url, database):
    chain = DevChain(7, 60)
    with dev_node(chain) as node:
        pushed = {"TRACE_RPC_GATEWAY": "always", "TRACE_RPC_POOL_NODE_WS_URL": node.url.replace("http", "ws", 1)}
        with following(postgres_url, pushed, node=node.url):
            streams = follow_job(database)
            eventually(lambda: hot_blocks(database, streams["logs"].dataset_uuid) == list(range(60)), 60)
            for _ in range(5):
                block = chain.mine()
                eventually(lambda block=block: stored_chain(database).get(block.number) == block.hash)
                time.sleep(0.2)
            chain.reorg(3, 4)
            eventually(lambda: stored_chain(database) == {each.number: each.hash for each in chain.blocks})


def test_the_sensor_gives_each_chain_its_share_of_the_time(postgres_url, database):
    chain = DevChain(7, 60)
    with dev_node(chain) as node, follower_process(postgres_url, node=node.url, dead="http://127.0.0.1:9") as runtime:
        follow_job(database, datasets=("logs",), name="dead", chain_id=1, pool="dead")
        stream = follow_job(database, datasets=("logs",), chunk=1000)["logs"]
        for _ in range(2):
            for _ in range(40):  # more than are stored with a head
                chain.mine()
            assert "chain 1: stored 0 blocks" in runtime.followers.tick(3)
        assert hot_blocks(database, stream.dataset_uuid) == list(range(140))


def test_a_fault_at_one_chain_does_not_keep_the_sensor_from_the_others(postgres_url, database):
    with dev_node(DevChain(7, 60)) as node, follower_process(postgres_url, node=node.url) as runtime:
        follow_job(database, datasets=("logs",), name="first", chain_id=1)
        follow_job(database, datasets=("logs",), chunk=1000)
        runtime.followers.tick(0.2)
        runtime.followers._followers[1].advance = lambda *_, **__: 1 // 0
        said = runtime.followers.tick(5)
        assert "chain 1: failed with an unexpected ZeroDivisionError" in said
        assert max(stored_chain(database)) == 59


def test_the_sensor_ends_the_threads_of_a_chain_that_is_not_followed_any_more(postgres_url, database):
    with dev_node(DevChain(7, 60)) as node, follower_process(postgres_url, node=node.url) as runtime:
        follow_job(database, datasets=("logs",), name="first", chain_id=1)
        follow_job(database, datasets=("logs",))
        runtime.followers.tick(2)
        (ended,) = (each for each in threading.enumerate() if each.name == "lease-1")
        Jobs(database).set_enabled("first", False)
        assert "chain 1:" not in runtime.followers.tick(5)
        ended.join(5)
        assert not ended.is_alive()
        Jobs(database).set_enabled("first", True)
        assert "chain 1: stored 0 blocks" in runtime.followers.tick(2)
