"""Calls about the newest blocks in the gateway: their place in the queue, probes, and what the cache forgets."""

import asyncio

import msgspec
import pytest

from tests.unit.test_gateway_budget import Clock
from trace_dagster.gateway.breaker import FAILURES, OPEN_SECONDS, Breaker
from trace_dagster.gateway.cache import AnswerCache
from trace_dagster.gateway.cacheable import block_hash, cacheable_call, first_block, last_block
from trace_dagster.gateway.call_queue import CallQueue, QueuedCall, Rank


def queued(method, rank=Rank.OTHER):
    return QueuedCall(method, b"[]", asyncio.Future(loop=asyncio.new_event_loop()), is_numbered=False, rank=rank)


def question(method, *params):
    found = cacheable_call(method, msgspec.Raw(msgspec.json.encode(params)))
    assert found is not None
    return found


def test_the_newest_comes_first_then_the_recent_and_only_the_newest_where_requests_are_reserved():
    queue, calls = CallQueue(), [queued("eth_getBlockByNumber"), queued("debug_traceBlockByNumber")]
    for call in calls:
        queue.add(call)
    assert queue.next_lane(is_newest_only=True) is None
    recent = queued("eth_getBlockByNumber", Rank.RECENT)
    queue.add(recent)
    newest = queued("eth_getBlockReceipts", Rank.NEWEST)
    queue.add(newest)
    assert len(queue) == 4
    for is_newest_only in (False, True, False):
        assert list(queue.next_lane(is_newest_only=is_newest_only) or ()) == [newest]
    newest.answer.cancel()
    assert list(queue.next_lane() or ()) == [recent]
    assert queue.next_lane(is_newest_only=True) is None
    recent.answer.cancel()
    assert list(queue.next_lane() or ()) == [calls[0]]
    queue.add_first(newest)
    assert set(queue.drain()) == {newest, *calls}
    assert len(queue) == 0


def test_an_endpoint_that_is_down_is_probed_more_often_for_the_tip():
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.failed()
    clock.now += 0.5
    assert (breaker.admits(), breaker.admits(0.5), breaker.admits(0.5)) == (False, True, False)
    clock.now += OPEN_SECONDS
    assert (breaker.admits(), breaker.admits()) == (True, False)


def test_the_cache_forgets_an_endpoints_blocks_from_one_on():
    cache = AnswerCache(1 << 20, Clock())
    log_filter = {"fromBlock": "0x1", "toBlock": "0x64"}
    gone = [
        question("eth_getBlockByNumber", "0x64", True),
        question("eth_getBlockReceipts", "0x65"),
        question("debug_traceBlockByNumber", "0xff", {"tracer": "callTracer"}),
        question("eth_getLogs", log_filter),
    ]
    stays = [question("eth_getBlockByNumber", "0x63", False), question("eth_chainId")]
    for each in (*gone, *stays):
        cache.put(("here", each), b"1")
        cache.put(("there", each), b"1")
    cache.forget("here", 100)
    assert [cache.has(("here", each)) for each in (*gone, *stays)] == [False] * 4 + [True] * 2
    assert all(cache.has(("there", each)) for each in (*gone, *stays))


def test_blocks_that_a_call_is_about():
    both = question("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x64"})
    assert (first_block(both), last_block(both)) == (1, 100)
    assert (first_block(question("eth_chainId")), last_block(question("eth_chainId"))) == (None, None)


@pytest.mark.parametrize(
    ("block", "found"),
    [(b'{"hash":"0xAb"}', "0xab"), (b"null", None), (b"[]", None), (b'{"hash":null}', None), (b"[" * 9999, None)],
)
def test_the_hash_of_a_block_that_may_be_anything(block, found):
    assert block_hash(block) == found
