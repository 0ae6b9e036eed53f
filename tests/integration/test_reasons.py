"""Reasons of failures are true: they name the call that failed, and no other, with the real engine and gateway."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.gateways import gateway, watched
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.devchain.chain import DevChain
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.errors import EndpointLacks, TraceError, Unavailable
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.gateway import endpoint_client
from trace_dagster.gateway.connections import HttpReply
from trace_dagster.gateway.endpoint_client import EndpointClient
from trace_dagster.gateway.outcome import of_reply
from trace_dagster.rpc.client import call_all
from trace_dagster.rpc.pools import Limits, RpcPool

pytestmark = pytest.mark.integration

OTHERS = ("eth_blockNumber", "eth_chainId", "eth_getBlockByNumber", "eth_getBlockReceipts")
FAULTS = {
    "401": (401, b""),
    "403": (403, b"<html>forbidden</html>"),
    "500": (500, b""),
    "502": (502, b"<html>bad gateway</html>"),
    "not json": (200, b"<html>hello</html>"),
    "cut": (200, b'{"jsonrpc":"2.0","id":1,"result":[{"addr'),
    "empty": (200, b""),
}


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, 50)


@pytest.fixture
def node(chain):
    with watched(chain) as served:
        yield served


def fails_logs(fault):
    """Return a manner that answers this to eth_getLogs, and the truth to other calls."""
    return lambda calls: FAULTS[fault] if any(call["method"] == "eth_getLogs" for call in calls) else None


def reason(engine, pool):
    """Return the error of a range of logs."""
    known = dataset("logs")
    request = RangeRequest(
        known, BlockRange(0, 4), 20143, known.stored_columns(), "structural", pool, None, {"timeout_seconds": 60}
    )
    with pytest.raises(TraceError) as caught:
        list(Extractor(engine).start(request))
    return caught.value


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_method_is_not_reported_as_anothers(engine, node, fault):
    node.manner = fails_logs(fault)
    found = str(reason(engine, RpcPool("dev", (node.url,))))
    assert not [other for other in OTHERS if other in found], found


@pytest.mark.parametrize("fault", FAULTS)
def test_through_the_gateway_the_reason_names_the_method_and_the_fault(engine, node, fault):
    node.manner = fails_logs(fault)
    with gateway(TRACE_RPC_POOL_DEV_URL=node.url) as door:
        error = reason(engine, RpcPool("dev", (node.url,), gateway_urls=(f"{door.url}/dev/1",)))
    found = str(error)
    assert not [other for other in OTHERS if other in found], found
    if fault in {"401", "403"}:
        assert isinstance(error, EndpointLacks)
        assert "refuses its key: check TRACE_RPC_POOL_DEV_URL" in found
    else:
        assert "eth_getLogs" in found
        assert f"HTTP {fault}" in found or "not JSON-RPC" in found or "is empty" in found


def test_calls_that_are_not_sent_are_told_which_call_failed(node):
    node.manner = fails_logs("500")
    with gateway(TRACE_RPC_POOL_DEV_URL=node.url) as door:
        pool = RpcPool("dev", (node.url,), gateway_urls=(f"{door.url}/dev/1",))
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"eth_getLogs.*: HTTP 500"):
                call_all(pool.endpoints[0], [("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "0x0"}])])
        with pytest.raises(Unavailable, match=r"dev#1 failed eth_getLogs too often .* left alone .*: HTTP 500$"):
            call_all(pool.endpoints[0], [("eth_chainId", [])])


def test_each_call_of_a_batch_has_its_own_reason():
    answers = [
        {"id": 1, "result": "0x1"},
        {"id": 2, "error": {"code": 429, "message": "too many requests"}},
        {"id": 3, "error": {"code": -32600, "message": "batch too large"}},
    ]
    found = of_reply(HttpReply(200, json.dumps(answers).encode()), [1, 2, 3, 4])
    assert set(found.answers) == {1}
    assert found.reason_of(2) == "it keeps refusing calls; it says: too many requests"
    assert found.reason_of(3) == "it refuses such batches; it says: batch too large"
    assert found.reason_of(4) not in {found.reason_of(2), found.reason_of(3)}


@pytest.mark.parametrize("late", [False, True])
def test_a_late_call_gets_the_nodes_answer_and_its_neighbours_keep_theirs(node, monkeypatch, late):
    """Check that null, which is asked again at first, is the answer when there is no time left to ask again."""
    monkeypatch.setattr(endpoint_client, "RETRY_SECONDS", -1.0 if late else 90.0)

    async def ask():
        client = EndpointClient(RpcPool("dev", (node.url,)).endpoints[0], Limits(), lambda: 1.0)
        calls = [
            client.ask("eth_getBlockByNumber", b'["0xffff",false]', is_numbered=True),
            client.ask("eth_chainId", b"[]"),
            client.ask("no_such_method", b"[]"),
        ]
        try:
            return [await asyncio.wait_for(call.answer, 30) for call in calls]
        finally:
            await client.close()

    unknown, chain_id, missing = asyncio.run(ask())
    assert unknown.result == b"null"
    assert chain_id.result == b'"0x4eaf"'
    assert b"-32601" in (missing.error or b"")
