"""The gateway's route for the newest blocks: before all other calls, within seconds, and never from the cache."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

import pytest

from tests.support.gateways import SURE_SECONDS, RpcFailed, gateway, watched
from tests.support.nodes import forked
from tests.unit.test_gateway_budget import most_within
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import DevNodeMethods
from trace_dagster.errors import Unavailable
from trace_dagster.gateway.breaker import FAILURES
from trace_dagster.gateway.sender import TIP_SECONDS
from trace_dagster.rpc.client import call_all
from trace_dagster.rpc.pools import Endpoint

pytestmark = pytest.mark.integration

BLOCKS = 60
HEAD = hex(BLOCKS - 1)
TIP = "dev/1/tip"


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS)


@pytest.fixture
def node(chain):
    with watched(chain) as node:
        yield node


def block_and_receipts(served):
    """Fetch the newest block as the follower does, and return the seconds that it took."""
    calls = [("eth_getBlockByNumber", [HEAD, True]), ("eth_getBlockReceipts", [HEAD])]
    started = time.monotonic()
    block, receipts = call_all(Endpoint("dev", 1, "http://hidden", f"{served.url}/dev/1").tip(), calls)
    assert b'"hash"' in bytes(block)
    assert bytes(receipts).startswith(b"[")
    return time.monotonic() - started


@contextmanager
def backfill(served, method, *more, threads=40, at="dev/1"):
    """Ask for a method of every block in ever new forms, from many threads, until the end of the block."""
    is_over = threading.Event()

    def ask(thread):
        for attempt in range(1, 10_000):
            if is_over.is_set():
                return
            served.ask(method, hex((thread + attempt) % BLOCKS), *more, at=f"{at}?try={thread * 10_000 + attempt}")

    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(ask, thread) for thread in range(threads)]
        try:
            yield
        finally:
            is_over.set()
    for each in asked:
        each.result()


def test_a_call_at_the_tip_takes_the_next_slot_of_a_budget_that_backfill_uses_up(node):
    with gateway(dev=node.url, TRACE_RPC_POOL_DEV_RPS="20") as served, backfill(served, "eth_getBlockByNumber", False):
        time.sleep(1.5)
        queued = served.counts()["queued"]
        ordinary = time.monotonic()
        served.ask("eth_getBlockByNumber", "0x0", True)
        ordinary = time.monotonic() - ordinary
        took = [block_and_receipts(served) for _ in range(10)]
    assert queued >= 25
    assert ordinary > 1.0
    assert median(took) < 0.3, took
    assert max(took) < ordinary, took
    sent = [(at, len(calls)) for at, calls in node.requests]
    assert most_within(SURE_SECONDS, sent) <= 20  # with the tip's calls outside the budget it would be twice as many


def test_many_blocks_at_once_may_take_their_time_and_do_not_hold_back_the_newest(node):
    endpoint_calls = [("eth_getBlockByNumber", [hex(number), True]) for number in range(50)]
    given = {"TRACE_RPC_POOL_DEV_RPS": "8", "TRACE_RPC_POOL_DEV_BATCH": "1"}
    with gateway(dev=node.url, **given) as served, ThreadPoolExecutor(1) as threads:
        endpoint = Endpoint("dev", 1, "http://hidden", f"{served.url}/dev/1", batch=1).tip()
        with backfill(served, "eth_getBlockByNumber", False, threads=10):
            started = time.monotonic()
            filling = threads.submit(call_all, endpoint, endpoint_calls)
            time.sleep(1.5)
            took = [block_and_receipts(served) for _ in range(4)]
            assert not filling.done()
            assert len(filling.result()) == 50
            filled = time.monotonic() - started
    assert median(took) < 1.0, took
    assert TIP_SECONDS + 2 < filled < 10.0  # 58 calls of 8 a second: nothing else was sent meanwhile


def test_backfill_leaves_an_http_request_for_the_tip(node):
    node.delay = lambda calls: 1.0 if calls[0]["method"].startswith("debug_") else 0.0
    tracer = {"tracer": "callTracer"}
    with (
        gateway(dev=node.url, TRACE_RPC_POOL_DEV_CONCURRENCY="4", TRACE_RPC_POOL_DEV_BATCH="1") as served,
        backfill(served, "debug_traceBlockByNumber", tracer, threads=12),
    ):
        block_and_receipts(served)  # from now on a request is reserved
        time.sleep(1.2)
        took = [block_and_receipts(served) for _ in range(10)]
        assert node.most_at_once == 4
    assert median(took) < 0.3, took  # without a reserved request each would take about a second


def test_after_a_reorganisation_the_tip_shows_the_new_block_and_the_cache_forgets_the_old_one(node):
    new = forked(7, 50, BLOCKS)
    with gateway(dev=node.url) as served:
        served.ask("eth_getBlockByNumber", HEAD, True)
        served.ask("eth_getBlockReceipts", HEAD)
        before = served.ask("eth_getBlockByNumber", HEAD, False)
        node.methods = DevNodeMethods(new)
        asked = len(node.requests)
        assert served.ask("eth_getBlockByNumber", HEAD, False) == before
        assert len(node.requests) == asked  # from the cache
        after = served.ask("eth_getBlockByNumber", HEAD, True, at=TIP)
        assert after["hash"] == f"0x{new.blocks[BLOCKS - 1].hash.hex()}" != before["hash"]
        assert served.ask("eth_getBlockByNumber", HEAD, True) == after
        assert {each["blockHash"] for each in served.ask("eth_getBlockReceipts", HEAD)} == {after["hash"]}


def test_calls_at_the_tip_are_not_shared_and_only_the_chain_id_is_cached(node):
    node.delay = lambda calls: 0.05
    with gateway(dev=node.url) as served, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: served.ask("eth_getBlockByNumber", HEAD, True, at=TIP), range(4)))
        for _ in range(3):
            served.ask("eth_chainId", at=TIP)
        counts = served.counts()
    assert node.calls == {"eth_getBlockByNumber": 4, "eth_chainId": 1}
    assert (counts["tip_calls"], counts["calls_kept"]) == (7, 2)


def test_a_call_at_the_tip_that_a_node_does_not_answer_fails_within_seconds_and_frees_its_request(node):
    node.delay = lambda calls: 5.0 if calls[0]["method"] == "eth_getBlockByNumber" else 0.0
    with gateway(dev=node.url) as served:
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"rpc endpoint dev#1 does not answer eth_getBlockByNumber"):
            call_all(
                Endpoint("dev", 1, "http://hidden", f"{served.url}/dev/1").tip(),
                [("eth_getBlockByNumber", [HEAD, True])],
            )
        assert TIP_SECONDS - 1 < time.monotonic() - started < TIP_SECONDS + 1
        time.sleep(0.3)
        assert served.counts()["under_way"] == 0


def test_an_endpoint_that_was_down_serves_the_tip_as_soon_as_it_is_back(node):
    node.manner = lambda calls: (503, b"")
    with gateway(dev=node.url) as served:
        with ThreadPoolExecutor(FAILURES) as threads:
            asked = [threads.submit(served.ask, "eth_getBlockByNumber", HEAD, True, at=TIP) for _ in range(FAILURES)]
            assert all(isinstance(each.exception(), RpcFailed) for each in asked)
        assert served.counts()["is_down"]
        node.manner = lambda calls: None
        started = time.monotonic()
        while True:
            try:
                served.ask("eth_getBlockByNumber", HEAD, True, at=TIP)
                break
            except RpcFailed:
                time.sleep(0.05)
        assert time.monotonic() - started < 1.5
        assert not served.counts()["is_down"]
