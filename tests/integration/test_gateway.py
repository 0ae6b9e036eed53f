"""A gateway in front of real nodes: which calls reach them, which answers come back, and what its errors never
contain.
"""

import base64
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import quote, urlsplit

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateways import SURE_SECONDS, RpcFailed, ask_heads, fetch, gateway, gateway_process, watched
from tests.support.nodes import serving
from tests.unit.test_gateway_budget import most_within
from trace_dagster.blocks import BlockRange
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.devchain.server import DevNodeMethods
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.errors import Unavailable
from trace_dagster.gateway.budget_shares import BudgetShares
from trace_dagster.gateway.status_client import endpoints_asked
from trace_dagster.messages.logs import facts_of
from trace_dagster.rpc.client import call_all
from trace_dagster.rpc.pools import Endpoint

pytestmark = pytest.mark.integration

BLOCKS = 150
TRACER = {"tracer": "callTracer"}
DATASETS = ("blocks", "transactions", "logs", "geth_calls")
SECRET = "SECRETKEY0123456789"
CHAOS = ("http_429", "http_429_text", "http_500", "http_500_valid_body", "reset", "malformed_json", "wrong_id",
         "null_result", "error_32005_limit", "error_32603_overloaded")  # fmt: skip


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS)


@pytest.fixture
def node(chain):
    with watched(chain) as node:
        yield node


@pytest.fixture
def served(node):
    with gateway(dev=node.url) as served:
        yield served


@pytest.fixture(scope="module")
def faulty(chain):
    """Start a chaos proxy for each transport fault, by its name."""
    with ExitStack() as stack:
        url = stack.enter_context(serving(chain))
        refusing = ("http_429", "http_429_text", "error_32005_limit", "error_32603_overloaded")
        rates = {fault: 0.01 if fault in refusing else 0.03 for fault in CHAOS}  # a refusal slows all callers down
        yield {
            fault: stack.enter_context(chaos_rpc(url, faults=[fault], rate=rate, seed=3))
            for fault, rate in rates.items()
        }


@pytest.fixture(scope="module")
def lasting(faulty):
    """Yield one gateway for the tests that leave no state behind. Its pools are the faults, and ``dev``."""
    with gateway(dev=faulty["reset"].url + "/", **{fault: proxy.url for fault, proxy in faulty.items()}) as lasting:
        yield lasting


@pytest.fixture(scope="module")
def honest(chain):
    """Return the node's own answer."""
    methods = DevNodeMethods(chain)
    return lambda method, *params: json.loads(methods.answer({"id": 1, "method": method, "params": list(params)}))[
        "result"
    ]


def batch(calls):
    return [
        {"jsonrpc": "2.0", "id": n, "method": method, "params": params} for n, (method, *params) in enumerate(calls)
    ]


def results(answers):
    return [answer["result"] for answer in answers]


@contextmanager
def together(threads=16):
    with ThreadPoolExecutor(threads) as pool:
        yield pool


def test_answers_are_the_nodes_own_under_the_askers_id(served, honest):
    for identity in (7, "seven", 0, 2**53):
        request = {"jsonrpc": "2.0", "id": identity, "method": "eth_getBlockByNumber", "params": ["0x5", True]}
        assert served.post(request) == {
            "jsonrpc": "2.0",
            "id": identity,
            "result": honest("eth_getBlockByNumber", "0x5", True),
        }
    with pytest.raises(RpcFailed, match="Method not supported") as raised:
        served.ask("trace_block", "0x5")
    assert raised.value.code == -32601


def test_calls_that_wait_travel_together(node, honest):
    node.delay = lambda calls: 0.05
    with gateway(dev=node.url, TRACE_RPC_POOL_DEV_CONCURRENCY="2") as served, together(40) as threads:
        found = list(threads.map(lambda n: served.ask("eth_getBlockByNumber", hex(n), False), range(120)))
    assert found == [honest("eth_getBlockByNumber", hex(n), False) for n in range(120)]
    assert node.calls["eth_getBlockByNumber"] == 120
    assert len(node.requests) < 40
    assert max(len(calls) for _, calls in node.requests) <= 50


def test_a_batch_larger_than_the_endpoint_takes_is_sent_in_parts(node, honest):
    with gateway(dev=node.url, TRACE_RPC_POOL_DEV_BATCH="7") as served:
        answers = served.post(batch([("eth_getBlockByNumber", hex(n), False) for n in range(50)]))
    assert results(answers) == [honest("eth_getBlockByNumber", hex(n), False) for n in range(50)]
    assert [answer["id"] for answer in answers] == list(range(50))
    assert max(len(calls) for _, calls in node.requests) == 7


def test_our_own_client_through_it(served, node):
    endpoint = Endpoint("dev", 1, f"{served.url}/dev/1")
    found = call_all(endpoint, [("eth_getBlockReceipts", [hex(n)]) for n in range(120)])
    assert len(found) == 120
    assert node.calls["eth_getBlockReceipts"] == 120


def test_an_endpoint_without_batches_is_asked_one_by_one_and_remembered(served, node, honest):
    def manner(calls):
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batches are not supported"}}
        return (200, json.dumps(error).encode()) if len(calls) > 1 else None

    node.manner = manner
    for first in (0, 50):
        answers = served.post(batch([("eth_getBlockByNumber", hex(n), True) for n in range(first, first + 50)]))
        assert results(answers) == [honest("eth_getBlockByNumber", hex(n), True) for n in range(first, first + 50)]
        refused = sum(len(calls) > 1 for _, calls in node.requests)
    assert refused < 50
    assert served.counts()["batch_size"] == 1
    seen = len(node.requests)
    served.post(batch([("eth_blockNumber",)] * 20))
    assert [len(calls) for _, calls in node.requests[seen:]] == [1] * 20


def test_heavy_calls_do_not_travel_with_others(served, node):
    node.delay = lambda calls: 0.02
    calls = [(method, hex(n), *rest) for n in range(20) for method, *rest in (
        ("debug_traceBlockByNumber", TRACER), ("eth_getBlockByNumber", False), ("eth_getBlockReceipts",)
    )]  # fmt: skip
    served.post(batch(calls))
    kinds = [{call["method"] for call in calls} for _, calls in node.requests]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(kinds) < 20


def test_what_many_ask_is_fetched_once_and_kept(served, node, honest):
    node.delay = lambda calls: 0.2
    with together() as threads:
        found = list(threads.map(lambda _: served.ask("debug_traceBlockByNumber", "0x9", TRACER), range(16)))
    assert found == [honest("debug_traceBlockByNumber", "0x9", TRACER)] * 16
    served.ask("debug_traceBlockByNumber", "0x9", TRACER)
    assert node.calls == {"debug_traceBlockByNumber": 1}
    counts = served.counts()
    assert counts["calls_asked"] == 17
    assert counts["calls_joined"] + counts["calls_kept"] == 16
    assert counts["calls_kept"] >= 1


def test_what_may_change_is_asked_each_time(served, node):
    for _ in range(3):
        served.ask("eth_blockNumber")
        served.ask("eth_getBlockByNumber", "latest", False)
    assert node.calls == {"eth_blockNumber": 3, "eth_getBlockByNumber": 3}


def test_null_is_asked_again_and_never_kept(served, node):
    beyond = hex(BLOCKS + 10)
    assert served.ask("eth_getBlockByNumber", beyond, False) is None
    first = node.calls["eth_getBlockByNumber"]
    assert first == 3  # a replica that lags may have it shortly afterwards
    assert served.ask("eth_getBlockByNumber", beyond, False) is None
    assert node.calls["eth_getBlockByNumber"] == 2 * first


def test_a_retry_after_a_failed_proof_reaches_the_node(served, node, honest):
    wrong = {"number": "0x5", "transactions": [], "hash": "0xbad"}
    node.manner = lambda calls: (200, json.dumps({"jsonrpc": "2.0", "id": calls[0]["id"], "result": wrong}).encode())
    assert served.ask("eth_getBlockByNumber", "0x5", True) == wrong
    node.manner = lambda calls: None
    assert served.ask("eth_getBlockByNumber", "0x5", True) == wrong
    for _ in range(2):
        right = served.ask("eth_getBlockByNumber", "0x5", True, at="dev/1?try=1")
        assert right == honest("eth_getBlockByNumber", "0x5", True)
    assert node.calls["eth_getBlockByNumber"] == 3
    assert served.ask("eth_getBlockByNumber", "0x5", False, at="dev/1/blocks?try=2") == honest(
        "eth_getBlockByNumber", "0x5", False
    )


def test_narrow_answers_are_read_out_of_what_is_wanted_anyway(served, node, honest):
    with together() as threads:
        thin = threads.map(lambda n: served.ask("eth_getBlockByNumber", hex(n), False, at="dev/1/blocks"), range(20))
        logs = threads.map(
            lambda n: served.ask("eth_getLogs", {"fromBlock": hex(n), "toBlock": hex(n)}, at="dev/1/blocks+receipts"),
            range(20),
        )
        assert list(thin) == [honest("eth_getBlockByNumber", hex(n), False) for n in range(20)]
        assert list(logs) == [honest("eth_getLogs", {"fromBlock": hex(n), "toBlock": hex(n)}) for n in range(20)]
    assert set(node.calls) == {"eth_getBlockByNumber", "eth_getBlockReceipts"}
    assert all(call["params"][1] for _, calls in node.requests for call in calls if len(call["params"]) > 1)
    before = len(node.requests)
    served.post(batch([("eth_getBlockByNumber", hex(n), True) for n in range(20)]))
    assert len(node.requests) == before


@pytest.mark.parametrize(
    "more", [{}, {"topics": [None, None]}, {"address": "0x" + "11" * 20}], ids=["all", "by topics", "by address"]
)
@pytest.mark.parametrize("logs", ["disabled", "over a limit", "doubled", "empty"])
def test_logs_are_not_asked_for_where_receipts_are_wanted_anyway(served, node, honest, more, logs):
    where = {"fromBlock": "0x0", "toBlock": "0x1d", **more}
    told = honest("eth_getLogs", where)
    wrong = {
        "disabled": {"error": {"code": -32601, "message": "eth_getLogs is disabled"}},
        "over a limit": {"error": {"code": -32005, "message": "query returned more than 10000 results"}},
        "doubled": {"result": told * 2},
        "empty": {"result": []},
    }[logs]

    def manner(calls):
        if all(call["method"] != "eth_getLogs" for call in calls):
            return None
        answers = [{"id": call["id"], **wrong} for call in calls]
        return 200, json.dumps(answers if len(answers) > 1 else answers[0]).encode()

    node.manner = manner
    for _ in range(2):
        assert served.ask("eth_getLogs", where, at="dev/1/blocks+receipts") == told
    one = {**where, "toBlock": "0x0"}
    assert served.ask("eth_getLogs", one, at="dev/1/receipts") == honest("eth_getLogs", one)
    assert node.calls["eth_getLogs"] == 0
    assert node.calls["eth_getBlockReceipts"] <= 30 + 2 * 5, "receipts are kept, but for blocks that have none"


def test_without_being_told_nothing_more_is_asked(served, node):
    served.ask("eth_getBlockByNumber", "0x5", False)
    served.ask("eth_getLogs", {"fromBlock": "0x5", "toBlock": "0x5"})
    assert [call["method"] for _, calls in node.requests for call in calls] == ["eth_getBlockByNumber", "eth_getLogs"]
    assert node.requests[0][1][0]["params"] == ["0x5", False]


def test_a_node_without_block_receipts_is_asked_for_each_receipt(served, node, honest):
    def manner(calls):
        answers = [
            {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": "no such method"}}
            for call in calls
        ]
        return (200, json.dumps(answers[0]).encode()) if calls[0]["method"] == "eth_getBlockReceipts" else None

    node.manner = manner
    for n in range(3):
        where = {"fromBlock": hex(n), "toBlock": hex(n)}
        assert served.ask("eth_getLogs", where, at="dev/1/receipts") == honest("eth_getLogs", where)
    transactions = sum(len(honest("eth_getBlockByNumber", hex(n), False)["transactions"]) for n in range(3))
    assert node.calls == {
        "eth_getBlockReceipts": 1, "eth_getBlockByNumber": 3, "eth_getTransactionReceipt": transactions,
    }  # fmt: skip


@pytest.mark.parametrize("fault", CHAOS)
def test_each_fault_of_the_way_is_made_good(faulty, lasting, honest, fault):
    calls = [("eth_getBlockByNumber", hex(n), False) for n in range(100)]
    calls += [("eth_getBlockReceipts", hex(n)) for n in range(100)]
    with together(4) as threads:
        found = threads.map(
            lambda first: lasting.post(batch(calls[first : first + 50]), f"{fault}/1"), range(0, 200, 50)
        )
        answers = [answer.get("result", answer) for part in found for answer in part]
    assert answers == [honest(*call) for call in calls]
    assert faulty[fault].injected[fault] > 0


def test_a_limit_holds_for_two_processes_together(node):
    limit = 60
    two = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with gateway(dev=node.url, TRACE_RPC_POOL_DEV_RPS=str(limit)) as served, two as processes:
        answered = list(processes.map(ask_heads, [served.url] * 2, [90, 90]))
    assert answered == [90, 90]
    sent = [(at, len(calls)) for at, calls in node.requests]
    assert len({calls[0]["id"] for _, calls in node.requests}) == len(sent)
    assert most_within(SURE_SECONDS, sent) <= limit
    assert sum(calls for at, calls in sent if at < sent[0][0] + 2.5) >= 0.8 * 2.5 * limit


def test_requests_at_once_are_bounded(node):
    node.delay = lambda calls: 0.05
    with gateway(dev=node.url, TRACE_RPC_POOL_DEV_CONCURRENCY="3", TRACE_RPC_POOL_DEV_BATCH="1") as served:
        with together(24) as threads:
            list(threads.map(lambda n: served.ask("eth_getBlockByNumber", hex(n), False), range(48)))
        assert served.counts()["under_way"] == 0
    assert node.most_at_once == 3


def test_refusals_slow_everybody_down_and_fail_nobody(served, node, caplog):
    """The provider allows 40 calls a second, and the gateway has no limit set."""
    allowed = []

    def manner(calls):
        now = time.monotonic()
        if sum(n for at, n in allowed if at > now - 1) + len(calls) > 40:
            return 429, b"slow down"
        allowed.append((now, len(calls)))
        return None

    node.manner = manner
    with together(16) as threads:
        found = list(threads.map(lambda n: served.ask("eth_getBlockByNumber", hex(n), False), range(100)))
    assert [int(block["number"], 16) for block in found] == list(range(100))
    counts = served.counts()
    assert counts["refusals"] > 0
    assert [event for event, _ in events(caplog)].count("rate_limited") == 1, (
        "one line, however many calls were refused"
    )
    assert counts["rate"] is not None


def test_a_dead_endpoint_fails_fast_and_comes_back(node, caplog):
    caplog.set_level("INFO", "trace_dagster")
    down = True
    node.manner = lambda calls: (503, b"") if down else None
    with gateway(dev=node.url) as served:
        with together(8) as threads:
            codes = list(threads.map(lambda n: failing(served, n), range(12)))
        assert {code for code, _ in codes} == {-32000}
        started, seen = time.monotonic(), len(node.requests)
        _, text = failing(served, 99)
        assert time.monotonic() - started < 1.0
        assert text.startswith(("rpc endpoint dev#1 failed eth_getBlockByNumber", "rpc endpoint dev#1 does not answer"))
        assert text.endswith(": HTTP 503")
        assert len(node.requests) <= seen + 1
        assert served.counts()["is_down"]
        down = False
        recovered = until(lambda: failing(served, 3) is None, seconds=8)
        assert recovered
        assert not served.counts()["is_down"]
    assert events(caplog) == [("endpoint_down", "dev#1"), ("endpoint_recovered", "dev#1")], "a line per change of state"


def events(caplog):
    """Return the gateway's log as (event, endpoint) of each line."""
    records = [record for record in caplog.records if record.name == "trace_dagster.gateway"]
    return [(record.getMessage(), facts_of(record).get("endpoint")) for record in records]


def failing(served, number):
    try:
        served.ask("eth_getBlockByNumber", hex(number), False)
    except RpcFailed as failed:
        return failed.code, failed.message
    return None


def until(happens, seconds):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if happens():
            return True
        time.sleep(0.2)
    return False


def test_a_refused_key_is_said_at_once(served, node):
    node.manner = lambda calls: (401, b"who are you")
    with pytest.raises(RpcFailed, match=r"rpc endpoint dev#1 .* refuses its key \(HTTP 401\)"):
        served.ask("eth_blockNumber")
    assert len(node.requests) == 1


def test_an_answer_that_takes_too_long_is_asked_for_again(served, node, honest):
    held = set()

    def delay(calls):
        numbers = {call["params"][0] for call in calls if call["method"] == "eth_getBlockByNumber"} & {"0x50", "0x51"}
        first, held_before = numbers - held, set(held)
        held.update(numbers)
        return 3.0 if first - held_before else 0.0

    node.delay = delay
    for n in range(60):
        served.ask("eth_getBlockByNumber", hex(n), False)
    started = time.monotonic()
    assert served.ask("eth_getBlockByNumber", "0x50", False) == honest("eth_getBlockByNumber", "0x50", False)
    assert 0.4 < time.monotonic() - started < 2.5
    counts = served.counts()
    assert (counts["hedges_sent"], counts["hedges_won"], counts["under_way"]) == (1, 1, 0)


def test_hedges_are_few(served, node):
    """When all calls become slow, hedging would only add load."""
    for n in range(20):
        served.ask("eth_getBlockByNumber", hex(n), False)
    node.delay = lambda calls: 1.0
    with together(20) as threads:
        list(threads.map(lambda n: served.ask("eth_getBlockByNumber", hex(n), False), range(20, 60)))
    counts = served.counts()
    assert counts["hedges_sent"] <= 0.05 * counts["calls_sent"]


def test_what_nobody_waits_for_any_more_is_not_sent(node):
    node.delay = lambda calls: 0.3
    with gateway(dev=node.url, TRACE_RPC_POOL_DEV_CONCURRENCY="1", TRACE_RPC_POOL_DEV_BATCH="1") as served:
        parts = urlsplit(served.url)
        gone = []
        for n in range(10):
            connection = HTTPConnection("127.0.0.1", parts.port)
            call = {"id": n, "method": "eth_getBlockByNumber", "params": [hex(n), False]}
            connection.request("POST", f"{parts.path}/dev/1", json.dumps(call))
            gone.append(connection)
        assert until(lambda: served.counts()["queued"] == 9, seconds=3)
        for connection in gone:
            connection.close()
        served.ask("eth_blockNumber")
        assert node.calls["eth_getBlockByNumber"] <= 2


def test_two_gateways_share_a_budget(node, postgres_url):
    with gateway_process(dev=node.url, TRACE_RPC_POOL_DEV_RPS="40", TRACE_POSTGRES_URL=postgres_url) as served:
        served.ask("eth_blockNumber")
        other = BudgetShares(postgres_url, lambda: [Endpoint("dev", 1, node.url).fingerprint], lambda gateways: None)
        other.start()
        try:
            assert until(lambda: served.ask("eth_blockNumber") and served.counts()["limit"] == 20, seconds=6)
        finally:
            other.close()
        assert until(lambda: served.ask("eth_blockNumber") and served.counts()["limit"] == 40, seconds=6)


def test_the_wrong_token_finds_nothing(lasting):
    address = f"http://127.0.0.1:{urlsplit(lasting.url).port}"
    for path in ("/", "/wrong/dev/1", "/wrong/status", "/dev/1", "/status", "/metrics"):
        assert fetch(address + path, b'{"id":1,"method":"eth_chainId"}') == (404, b"not found")
        assert fetch(address + path)[0] == 404


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("nowhere/1", "rpc pool 'nowhere' has no URL: set TRACE_RPC_POOL_NOWHERE_URL"),
        ("dev/2", "rpc pool dev has endpoints 1 to 1"),
        ("dev/x", "rpc pool dev has endpoints 1 to 1"),
        ("dev", "rpc pool dev has endpoints 1 to 1"),
        ("dev/1/everything", "ask the gateway at"),
        ("dev/1?try=x", "ask the gateway at"),
    ],
)
def test_what_is_not_there_is_said(lasting, at, text):
    with pytest.raises(RpcFailed, match=text) as raised:
        lasting.ask("eth_chainId", at=at)
    assert raised.value.code == -32000
    assert [answer["id"] for answer in lasting.post(batch([("eth_chainId",)] * 3), at)] == [0, 1, 2]


@pytest.mark.parametrize(("body", "code"), [(b"{", -32700), (b"[1]", -32700), (b"7", -32700), (b"[]", -32600)])
def test_what_is_no_request_is_said(lasting, body, code):
    assert json.loads(fetch(f"{lasting.url}/dev/1", body)[1])["error"]["code"] == code


def test_the_fallback_url_is_every_pool(node):
    with gateway(TRACE_CRYO_RPC_URL=node.url) as served:
        assert served.ask("eth_chainId", at="one/1") == hex(CHAIN_ID)
        assert served.ask("eth_chainId", at="two/1") == hex(CHAIN_ID)
        assert served.counts("one#1")["calls_asked"] == 2  # one URL has one budget


def test_a_node_behind_tls_is_asked_only_with_a_certificate_that_is_trusted(chain, honest, tmp_path):
    authority, proof, trusted = trustme.CA(), tmp_path / "node.pem", tmp_path / "trusted.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(proof)
    authority.cert_pem.write_to_path(trusted)
    with watched(chain, proof) as node:
        with gateway_process(dev=node.url, SSL_CERT_FILE=str(trusted)) as served:
            calls = [("eth_getBlockByNumber", hex(n), True) for n in range(120)]
            assert results(served.post(batch(calls))) == [honest(*each) for each in calls]
        with gateway_process(dev=node.url) as served, pytest.raises(RpcFailed, match="SSLCertVerificationError"):
            served.ask("eth_chainId")


def test_no_url_in_anything_it_says(node):
    port = urlsplit(node.url).port
    urls = f"http://user:{SECRET}@127.0.0.1:{port}/{SECRET}?key={SECRET},http://127.0.0.1:9/{SECRET}"
    seen = []
    with gateway_process(dev=urls) as served:
        assert served.ask("eth_chainId") == hex(CHAIN_ID)
        for at in ("dev/2", "dev/3", "other/1"):
            with pytest.raises(RpcFailed) as raised:
                served.ask("eth_chainId", at=at)
            seen.append(str(raised.value))
        seen += [fetch(f"{served.url}/{name}")[1].decode() for name in ("status", "metrics")]
        seen.append(served.end())
    assert "cannot connect" in seen[0]
    assert SECRET not in "".join(seen)
    assert f":{port}" not in "".join(seen)


def test_it_ends_with_its_owner(node):
    with gateway_process(dev=node.url) as served:
        served.end()
        assert served.process.returncode == 0


def test_metrics_are_prometheus_text(served):
    served.post(batch([("eth_getBlockByNumber", hex(n), False) for n in range(10)]))
    families = {each.name: each for each in text_string_to_metric_families(fetch(f"{served.url}/metrics")[1].decode())}
    assert families["trace_gateway_calls_asked"].type == "counter"
    assert families["trace_gateway_queued"].type == "gauge"
    assert families["trace_gateway_request_seconds"].type == "histogram"
    values = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in families.values()
        for sample in family.samples
        if sample.labels.get("endpoint") == "dev#1"
    }
    assert values["trace_gateway_calls_asked_total", None] == 10
    assert values["trace_gateway_request_seconds_count", None] == 1
    assert values["trace_gateway_request_seconds_bucket", "+Inf"] == 1
    assert all(value >= 0 for value in values.values())


def test_cryo_gives_the_same_tables_through_it(node):
    engine = EmbeddedCryo()
    with gateway_process(dev=node.url) as served, closing(engine):
        for name in DATASETS:
            known = dataset(name)
            tables = [
                engine.extract(
                    ExtractRequest(
                        known, BlockRange(0, 100), CHAIN_ID, known.engine_schema(known.stored_columns()),
                        Endpoint("dev", 1, url), timeout_seconds=60.0,
                    )
                )
                for url in (node.url, f"{served.url}/dev/1/blocks+receipts")
            ]  # fmt: skip
            assert tables[0].num_rows > 0
            assert tables[0].equals(tables[1])
        counts = served.counts()
        assert counts["calls_sent"] < counts["calls_asked"]
        assert counts["requests_sent"] < counts["calls_sent"]


def test_status_shows_what_is_asked_through_it(chain):
    with watched(chain) as node, gateway(dev=node.url, TRACE_RPC_POOL_DEV_RPS="100") as door:
        assert endpoints_asked(door.url) == {}
        door.ask("eth_blockNumber")
        found = endpoints_asked(door.url)
        assert found["dev#1"] | {"rate": None} == {
            "calls_asked": 1, "calls_sent": 1, "requests_sent": 1, "refusals": 0, "faults": 0, "queued": 0,
            "is_down": False, "rate": None, "limit": 100.0, "tip_calls": 0, "is_subscribed": None,
        }  # fmt: skip
    with pytest.raises(Unavailable, match="gateway does not answer"):
        endpoints_asked("http://127.0.0.1:9/token")


KEY = "KEY4f3a2b1c9d8e"


@pytest.mark.parametrize(
    "said",
    [
        f"invalid key {KEY}",
        f"see https://user:pw@dev.example/v2/{KEY}?a=b",
        f"https:\\/\\/dev.example\\/v2\\/{KEY}",
        quote(f"https://dev.example/v2/{KEY}", safe=""),
        base64.b64encode(f"x:{KEY}".encode()).decode(),
        KEY.upper(),
    ],
)
def test_an_error_of_a_node_is_redacted_at_the_gateways_door(chain, said):
    """The callers do not know the endpoint's URL, so they could not redact it."""
    error = {"code": 3, "message": said, "data": {"request": [said], "key": said}, KEY: said}
    with watched(chain) as node, gateway(dev=f"{node.url}/v2/{KEY}") as door:
        node.manner = lambda calls: (200, json.dumps({"id": calls[0]["id"], "error": error}).encode())
        answer = door.post({"jsonrpc": "2.0", "id": 7, "method": "eth_gasPrice", "params": []})
    assert answer["error"]["code"] == 3
    assert "[redacted]" in answer["error"]["message"]
    shown = json.dumps(answer).lower()
    assert KEY.lower() not in shown
    assert base64.b64encode(KEY.encode()).decode()[:12].lower() not in shown


@pytest.mark.parametrize("error", ["a text", ["a", "list"], 5, True, {"code": "x"}, {}, {"message": {"a": KEY}}])
def test_an_error_of_another_shape_is_passed_on_without_the_key(chain, error):
    with watched(chain) as node, gateway(dev=f"{node.url}/v2/{KEY}") as door:
        node.manner = lambda calls: (200, json.dumps({"id": calls[0]["id"], "error": error}).encode())
        answer = door.post({"jsonrpc": "2.0", "id": 7, "method": "eth_gasPrice", "params": []})
    assert "error" in answer
    assert KEY not in json.dumps(answer)


def test_a_long_error_of_a_node_is_cut(chain):
    error = {"code": 3, "message": "long " * 1_000_000, "data": "long " * 1_000_000}
    with watched(chain) as node, gateway(dev=node.url) as door:
        node.manner = lambda calls: (200, json.dumps({"id": calls[0]["id"], "error": error}).encode())
        answer = door.post({"jsonrpc": "2.0", "id": 7, "method": "eth_gasPrice", "params": []})
    assert len(json.dumps(answer)) < 10_000
