"""Calls through the gateway: the same rows, one budget for all processes, and work for every endpoint of a pool."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.test_evidence import bring_in
from tests.integration.test_proofs import FOUR, SEED, apply, commit
from tests.support.gateways import gateway_process, watched
from tests.support.nodes import running
from trace_dagster.config.settings import Settings
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import InvalidInput
from trace_dagster.gateway.routing import GatewayRouting
from trace_dagster.verify.fast_path import await_compiled

pytestmark = pytest.mark.integration
BLOCKS = 200
TRACES = "debug_traceBlockByNumber"


@pytest.fixture(scope="module")
def chain():
    """Serve node and runs from this process.

    Loading the compiled proof would delay the node, and a gateway would hedge.
    """
    await_compiled()
    return DevChain(SEED, BLOCKS + 20)


def test_a_node_next_door_without_limits_is_asked_directly(chain):
    with watched(chain) as node:
        settings = Settings.read({"TRACE_RPC_POOL_DEV_URL": node.url})
        doors = GatewayRouting(settings)
        pool = doors.through(settings.pool("dev"))
        assert [endpoint.address for endpoint in pool.endpoints] == [node.url]
        assert doors._owned is None


@pytest.mark.parametrize("variables", [{"TRACE_RPC_GATEWAY": "always"}, {"TRACE_RPC_POOL_DEV_RPS": "500"}, {}])
def test_a_limited_or_far_endpoint_is_asked_through_the_gateway(chain, variables):
    with watched(chain) as node:
        node.delay = lambda calls: 0.0 if variables else 0.05
        environment = {"TRACE_RPC_POOL_DEV_URL": node.url, "TRACE_RPC_GATEWAY_URL": "http://127.0.0.1:9/token"}
        settings = Settings.read(environment | variables)
        pool = GatewayRouting(settings).through(settings.pool("dev"), frozenset({"receipts", "blocks"}))
        (endpoint,) = pool.endpoints
        assert endpoint.address == "http://127.0.0.1:9/token/dev/1/blocks+receipts"
        assert endpoint.again(2).address == f"{endpoint.address}?try=2"
        assert endpoint.fingerprint == Settings.read(environment).pool("dev").endpoints[0].fingerprint


def test_never_means_never_and_nonsense_is_refused(chain):
    with watched(chain) as node:
        variables = {"TRACE_RPC_POOL_DEV_URL": node.url, "TRACE_RPC_POOL_DEV_RPS": "5", "TRACE_RPC_GATEWAY": "never"}
        settings = Settings.read(variables)
        assert GatewayRouting(settings).through(settings.pool("dev")).endpoints[0].address == node.url
    with pytest.raises(InvalidInput, match="TRACE_RPC_GATEWAY must be one of auto, always, never"):
        Settings.read({"TRACE_RPC_GATEWAY": "sometimes"})


def test_rows_through_the_gateway_are_the_chains_and_blocks_are_fetched_once(postgres_url, s3, chain):
    more = {"TRACE_RPC_GATEWAY": "always"}
    with watched(chain) as node, running(postgres_url, s3, more=more, dev=node.url) as runtime:
        streams = apply(runtime, end=BLOCKS)
        for stream in streams.values():
            runtime.evidence_cache.expect(stream.chain_id, stream.dataset.name)
            runtime.pools.of_stream(stream)
        published = bring_in(runtime, streams)
        rows = {key: sum(each.rows for each in published[place::4]) for place, key in enumerate(FOUR)}
        assert rows == {key: chain.rows(key, 0, BLOCKS) for key in FOUR}
        assert {each.verification["level"] for each in published} == {"full", "crosschecked"}
        # Cryo's five calls and the evidence's five calls become a block, its receipts and its traces
        assert set(node.calls) <= {"eth_chainId", "eth_getBlockByNumber", "eth_getBlockReceipts", TRACES}
        assert node.calls[TRACES] == BLOCKS
        assert node.calls["eth_getBlockByNumber"] == BLOCKS
        assert node.calls["eth_getBlockReceipts"] <= BLOCKS, "none for blocks that are known to be empty"
        assert len(node.requests) < sum(node.calls.values()) / 3, "calls travel in batches"
        assert {name for each in published for name in each.verification["endpoints"]} == {"dev#1"}


def test_headers_for_times_are_those_that_other_streams_fetch(postgres_url, s3, chain):
    more = {"TRACE_RPC_GATEWAY": "always"}
    with watched(chain) as node, running(postgres_url, s3, more=more, dev=node.url) as runtime:
        streams = apply(runtime, end=BLOCKS, verify="structural")
        for stream in streams.values():
            runtime.pools.of_stream(stream)
        published = bring_in(runtime, streams)
        assert {each.verification["level"] for each in published} == {"structural"}
        assert node.calls["eth_getBlockByNumber"] == BLOCKS


@pytest.mark.parametrize("mode", ["never", "always"])
def test_a_node_without_block_receipts_serves_all_streams(postgres_url, s3, chain, mode):
    def manner(calls):
        error = {"code": -32001, "message": "rpc method is not whitelisted"}
        answers = [
            json.dumps({"id": each["id"], "error": error}).encode()
            if each["method"] in {"eth_getBlockReceipts", "eth_getLogs"}
            and (mode == "always" or "Rec" in each["method"])
            else node.methods.answer(each)
            for each in calls
        ]
        return 200, b"[" + b",".join(answers) + b"]" if len(answers) > 1 else answers[0]

    more = {"TRACE_RPC_GATEWAY": mode}
    with watched(chain) as node, running(postgres_url, s3, more=more, dev=node.url) as runtime:
        node.manner = manner
        streams = apply(runtime, end=BLOCKS)
        for stream in streams.values():
            runtime.evidence_cache.expect(stream.chain_id, stream.dataset.name)
            runtime.pools.of_stream(stream)
        published = bring_in(runtime, streams)
        assert {each.verification["level"] for each in published} == {"full", "crosschecked"}
        rows = {key: sum(each.rows for each in published[place::4]) for place, key in enumerate(FOUR)}
        assert rows == {key: chain.rows(key, 0, BLOCKS) for key in FOUR}
        transactions = sum(len(block.transactions) for block in chain.blocks[:BLOCKS])
        assert node.calls["eth_getTransactionReceipt"] == transactions, "each only once for all streams"
        assert runtime.endpoint_scores.all() == [], "no endpoint is on record"


def test_a_limit_holds_for_all_processes_of_a_gateway(postgres_url, s3, chain):
    limit = 60
    with watched(chain) as node, gateway_process(dev=node.url, TRACE_RPC_POOL_DEV_RPS=str(limit)) as gateway:
        more = {"TRACE_RPC_GATEWAY_URL": gateway.url, "TRACE_RPC_POOL_DEV_RPS": str(limit)}
        with (
            running(postgres_url, s3, more=more, dev=node.url) as one,
            running(postgres_url, s3, more=more, dev=node.url) as other,
        ):
            streams = apply(one, end=BLOCKS, verify="structural", streams=("blocks", "geth_calls"))
            commit(one, streams["blocks"], 0)
            commit(other, streams["geth_calls"], 0)
        sent = [at for at, calls in node.requests for _ in calls]
        assert len(sent) > 3 * limit
        # calls are counted when they arrive, slightly earlier or later than the gateway granted them
        assert max(sum(1 for at in sent if start <= at < start + 0.9) for start in sent) <= limit


def test_endpoints_of_a_pool_add_up(postgres_url, s3, chain):
    limit = 40
    more = {"TRACE_RPC_POOL_DEV_RPS": str(limit)}
    with (
        watched(chain) as first,
        watched(chain) as second,
        running(postgres_url, s3, more=more, dev=f"{first.url},{second.url}") as runtime,
        ThreadPoolExecutor(2) as threads,
    ):
        calls = apply(runtime, end=BLOCKS, verify="structural", streams=("geth_calls",))["geth_calls"]
        started = time.monotonic()
        published = list(threads.map(lambda start: commit(runtime, calls, start), (0, 100)))
        seconds = time.monotonic() - started
        endpoints = sum((Counter(each.verification["endpoints"]) for each in published), Counter())
        assert set(endpoints) == {"dev#1", "dev#2"}
        asked = sum(first.calls.values()) + sum(second.calls.values())
        assert asked / seconds > 1.2 * limit, "more than one endpoint alone may be asked"


def test_an_endpoint_that_is_silent_is_asked_last_for_a_while(postgres_url, s3, chain):
    with watched(chain) as node, running(postgres_url, s3, dev=f"http://127.0.0.1:9,{node.url}") as runtime:
        streams = apply(runtime, end=BLOCKS, verify="structural", streams=("blocks",))
        published = [commit(runtime, streams["blocks"], start) for start in (0, 100)]
        assert [each.rows for each in published] == [100, 100]
        assert [set(each.verification["endpoints"]) for each in published] == [{"dev#2"}] * 2
        (down, up) = runtime.pools.of_stream(streams["blocks"]).endpoints
        assert runtime.extractor.load.of(down) > runtime.extractor.load.of(up)
