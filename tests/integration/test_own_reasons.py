"""Many calls share one Cryo process and its stderr. Each failure has the reason of its own endpoint, and no other."""

from __future__ import annotations

import json
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.test_engine import CLI, listening
from tests.support.gateways import gateway, watched
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.devchain.chain import DevChain
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.binary import CryoBinary
from trace_dagster.engine.embedded import WORKER_RETRIES, EmbeddedCryo
from trace_dagster.engine.workers import STALLED, Worker
from trace_dagster.errors import EndpointLacks, ExtractionFailed, TraceError, Unavailable
from trace_dagster.rpc.pools import Endpoint

pytestmark = pytest.mark.integration

HEAD = frozenset({"eth_chainId", "eth_blockNumber"})
LACKS = {"code": -32601, "message": "the method debug_traceBlockByNumber does not exist/is not available"}
WHITELIST = {"code": -32001, "message": "rpc method is not whitelisted"}
BUSY = {"code": -32000, "message": "the tracer is busy"}
FAULTS = {
    "lacks": lambda call: error(call, LACKS),
    "whitelist": lambda call: error(call, WHITELIST),
    "busy": lambda call: error(call, BUSY),
    "502": lambda call: (502, b"<html>bad gateway</html>"),
    "html": lambda call: (200, b"<html>maintenance at noon</html>"),
    "429": lambda call: (429, b"slow down"),
    "401": lambda call: (401, b'{"error":"invalid api key"}'),
    "plan": lambda call: (403, b'{"error":"this method is not available on the Free tier"}'),
    "403": lambda call: (403, b"<html>forbidden by the operator</html>"),
    "301": lambda call: (301, b""),
}
SAID = {
    "lacks": "it says: the method debug_traceBlockByNumber does not exist/is not available",
    "whitelist": "it says: rpc method is not whitelisted",
    "busy": "it says: the tracer is busy",
    "502": "it says: bad gateway",
    "html": "it says: maintenance at noon",
    "429": "it says: slow down",
    "401": "refuses its key: check TRACE_RPC_POOL_P401_URL; it says: invalid api key",
    "403": "refuses its key: check TRACE_RPC_POOL_P403_URL; it says: forbidden by the operator",
    "plan": "it says: this method is not available on the Free tier",
    "301": "redirects to https",
}
"""What the error must say."""
FINAL = {"lacks", "whitelist", "plan", "401", "403", "301"}
"""Faults after which the same request to the same endpoint would fail again."""


def error(call, said):
    return 200, json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": said}).encode()


def manner(fault, spared=HEAD):
    """Return the manner of a node that answers one kind of request like this, and others truly."""

    def answer(calls):
        asked = [call for call in calls if call["method"] not in spared]
        return FAULTS[fault](calls[0]) if asked else None

    return answer


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, 50)


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo(workers=1)
    yield opened
    opened.close()


@pytest.fixture
def binary(tmp_path):
    path = tmp_path / "cryo"
    path.write_text(CLI.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return CryoBinary(path, tmp_path / "staging")


@contextmanager
def endpoints(chain, *faults, through=False):
    """Serve one node per fault; yield its endpoint by the fault's name, which is its pool's name as well."""
    with ExitStack() as stack:
        found = {}
        for fault in faults:
            node = stack.enter_context(watched(chain))
            node.manner = manner(fault)
            found[fault] = Endpoint(f"p{fault}", 1, node.url)
        if through:
            variables = {f"TRACE_RPC_POOL_{each.pool.upper()}_URL": each.url for each in found.values()}
            door = stack.enter_context(gateway(**variables))
            found = {
                fault: Endpoint(each.pool, 1, each.url, f"{door.url}/{each.pool}/1") for fault, each in found.items()
            }
        yield found


def fails(engine, endpoint, name="geth_calls", blocks=(1, 4)):
    """Return the error of a call."""
    known = dataset(name)
    schema = known.engine_schema(known.stored_columns())
    request = ExtractRequest(known, BlockRange(*blocks), 20143, schema, endpoint, timeout_seconds=60)
    with pytest.raises(TraceError) as caught:
        engine.extract(request)
    return caught.value


def assert_own(fault, found):
    """Check that an error has the kind and the endpoint of its fault, and no word of another."""
    assert f"rpc endpoint p{fault}#1 " in str(found), (fault, str(found))
    others = [each for each in FAULTS if f"p{each}#1" in str(found) and each != fault]
    assert not others, (fault, str(found))
    assert isinstance(found, ExtractionFailed if fault in FINAL else Unavailable), (fault, type(found), str(found))
    assert not [other for other, words in SAID.items() if words in str(found) and other != fault], str(found)


@pytest.mark.parametrize("through", [False, True], ids=["near", "gateway"])
def test_each_of_many_calls_of_one_process_fails_for_its_own_reason(engine, chain, through):
    """The pool without traces must fail for good, and the one that answers 502 must be tried again."""
    faults = ("lacks", "502", "busy")
    rounds = 4 if through else 16
    with endpoints(chain, *faults, through=through) as found, ThreadPoolExecutor(24) as threads:
        asked = [fault for _ in range(rounds) for fault in faults]
        errors = list(threads.map(lambda fault: fails(engine, found[fault]), asked))
    for fault, each in zip(asked, errors, strict=True):
        assert_own(fault, each)
    assert all(isinstance(each, EndpointLacks) for fault, each in zip(asked, errors, strict=True) if fault == "lacks")


def test_a_binarys_failure_has_its_own_reason(binary, chain):
    faults = ("lacks", "502", "busy", "401")
    with endpoints(chain, *faults) as found, ThreadPoolExecutor(4) as threads:
        errors = list(threads.map(lambda fault: fails(binary, found[fault]), faults))
    for fault, each in zip(faults, errors, strict=True):
        assert_own(fault, each)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["geth_calls", "logs", "blocks"])
def test_what_a_call_alone_is_told(engine, chain, fault, name):
    with endpoints(chain, fault) as found:
        each = fails(engine, found[fault], name)
    assert_own(fault, each)
    assert SAID[fault] in str(each)
    assert ("refuses its key" in str(each)) == (fault in {"401", "403"})


def test_a_report_of_a_call_that_runs_alone_is_its_own(chain):
    worker = Worker()
    worker.await_start()
    try:
        with endpoints(chain, "busy", "502") as found:
            for fault, said in (("busy", "the tracer is busy"), ("502", "bad gateway")):
                arguments = {"start_block": 1, "end_block": 2, "rpc": found[fault].url, "verbose": False}
                failed = worker.submit("geth_calls", ["block_number"], [], arguments).exception(30)
                assert said in str(failed)
    finally:
        worker.kill()


def test_calls_that_another_call_takes_down_are_not_blamed_for_it(chain):
    """A stalled call ends its process. Other calls start again, more often than a crash of their own would allow."""
    opened = EmbeddedCryo(workers=1)
    with listening(None) as port, ThreadPoolExecutor(1) as threads:
        silent = Endpoint("silent", 1, f"http://127.0.0.1:{port}")
        known = dataset("blocks")
        schema = known.engine_schema(known.stored_columns())
        waiting = ExtractRequest(known, BlockRange(1, 2), 20143, schema, silent, timeout_seconds=300)
        try:
            call = threads.submit(opened.extract, waiting)
            for _ in range(WORKER_RETRIES + 1):
                wait_for_call(opened).kill(STALLED)
            wait_for_call(opened)
            assert not call.done()
        finally:
            opened.close()
        assert "extraction was stopped" in str(call.exception(30))


def wait_for_call(engine):
    """Return the worker that has the call."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for worker in engine._workers._workers:
            if worker.alive and worker.load:
                return worker
        time.sleep(0.02)
    raise AssertionError("no call is under way")
