"""The chaos proxy: which value each fault changes, how faults are drawn, and which responses pass unchanged."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.client import HTTPConnection, RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.nodes import serving
from tests.support.replay import replaying
from tests.unit.test_support_nodes import recorded, write
from trace_dagster.chaos_rpc import proxied_node, wire
from trace_dagster.chaos_rpc.blocks import forked
from trace_dagster.chaos_rpc.faults import FAULTS, USUAL
from trace_dagster.chaos_rpc.heads import HEADS
from trace_dagster.chaos_rpc.proxy import ChaosRpc, chaos_rpc
from trace_dagster.chaos_rpc.seeded_random import RequestRandom
from trace_dagster.chaos_rpc.shapes import BLOCKS, LISTS, WITH_ROWS, FaultContext, rows_of
from trace_dagster.cli import main
from trace_dagster.config.settings import Settings
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.devchain.server import DevNodeMethods
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.rpc.client import block_number_of, call_all

BLOCK_COUNT = 60
NUMBERS = range(20, 40)
TRIES = 5
TRACER = {"tracer": "callTracer"}
LOSING = ("empty_list", "truncate_head", "truncate_middle", "truncate_tail")
CHANGES = [(fault, method) for fault in FAULTS.values() if fault.change for method in sorted(fault.methods or ())]
EVERYWHERE = [fault for fault in FAULTS.values() if fault.change and fault.methods is None]


def ask(method, *params, identity=1):
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": list(params)}


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCK_COUNT)


@pytest.fixture(scope="module")
def node(chain):
    """Return a node that answers as the devchain does, without HTTP.

    Other methods get made-up answers of the same shape.
    """
    methods = DevNodeMethods(chain)

    def answer(request):
        method, identity = request["method"], request["id"]
        if method not in MADE_UP:
            return json.loads(methods.answer(request))
        return {"jsonrpc": "2.0", "id": identity, "result": MADE_UP[method](request["params"])}

    return answer


def parity_traces(params):
    number = int(params[0], 16)
    return [
        {"blockNumber": number, "transactionPosition": i, "action": {"from": "0x" + f"{number:02x}{i:02x}" * 10}}
        for i in range(4)
    ]


MADE_UP = {
    "trace_block": parity_traces,
    "trace_replayBlockTransactions": parity_traces,
    "debug_traceBlockByHash": lambda params: [
        {"result": {"gasUsed": hex(i + 2), "input": params[0]}} for i in range(4)
    ],
    "eth_call": lambda _: "0x" + "01" * 32,
    "eth_getCode": lambda _: "0x6080604052",
    "eth_getStorageAt": lambda _: "0x" + "02" * 32,
    "eth_getBalance": lambda _: "0x1234",
    "eth_getTransactionCount": lambda _: "0x0",
}


def question(chain, method, number):
    """Return a request of this method about block ``number``, in the form that engines send."""
    if method in {"eth_chainId", "net_version", "eth_blockNumber", "eth_syncing"}:
        return ask(method)
    if method == "eth_getLogs":
        return ask(method, {"fromBlock": hex(number), "toBlock": hex(number)})
    if "Transaction" in method and "Count" not in method and not method.startswith("trace_"):
        transaction = next(found for found, (block, _) in chain.locations.items() if block.number >= number)
        return ask(method, "0x" + transaction.hex())
    block = "0x" + chain.blocks[number].hash.hex() if method.endswith("ByHash") else hex(number)
    if method in {"eth_call", "eth_getBalance", "eth_getCode", "eth_getStorageAt", "eth_getTransactionCount"}:
        return ask(method, "0x" + "aa" * 20, block)
    return ask(method, block, TRACER if method.startswith("debug_") else True)


def tell(fault, request, node, rng):
    """Return the pair (honest answer, false answer) that the proxy would compute, without a fork."""
    honest = node(request)
    other = fault.question(request, rng) if fault.question and not fault.of_fork else None
    context = FaultContext(other, node(other)) if other else FaultContext()
    before = json.dumps(honest)
    false = fault.tell(request, honest, rng, context)
    assert json.dumps(honest) == before, "the honest answer was altered in place"
    return honest, false


@pytest.mark.parametrize(("fault", "method"), CHANGES, ids=lambda value: getattr(value, "name", value))
def test_every_fault_changes_the_answers_it_claims_to_change(chain, node, fault, method):
    hit = 0
    for number in NUMBERS:
        for n in range(TRIES):
            honest, false = tell(fault, question(chain, method, number), node, Random(n))
            assert false["jsonrpc"] == "2.0"
            assert ("result" in false) != ("error" in false)
            assert fault.name == "wrong_id" or false["id"] == honest["id"]
            hit += false != honest
    if fault.name == "stale_fork" and method.startswith(("debug_", "trace_")):
        assert hit == 0, "traces of a fork take a fork"
    else:
        assert hit >= TRIES


@pytest.mark.parametrize("fault", EVERYWHERE, ids=lambda fault: fault.name)
def test_faults_for_every_method_hit_any_answer(node, fault):
    honest, false = tell(fault, ask("eth_blockNumber", identity="text"), node, Random(1))
    assert false != honest
    assert set(false) in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})


@pytest.mark.parametrize("method", sorted(WITH_ROWS))
@pytest.mark.parametrize("name", LOSING)
def test_lost_rows_are_lost_where_the_name_says(chain, node, name, method):
    for number in NUMBERS:
        request = question(chain, method, number)
        honest, false = (rows_of(request, each) for each in tell(FAULTS[name], request, node, Random(number)))
        if honest == false:
            assert len(honest) < 3
            continue
        kept = len(false)
        expected = {
            "empty_list": [],
            "truncate_head": honest[len(honest) - kept :],
            "truncate_tail": honest[:kept],
        }.get(name, false)
        assert false == expected
        if name == "truncate_middle":
            assert (false[0], false[-1]) == (honest[0], honest[-1])
            assert any(honest[:i] + honest[i + len(honest) - kept :] == false for i in range(1, kept))


def test_other_row_faults_keep_every_row(chain, node):
    for number in NUMBERS:
        request = question(chain, "eth_getLogs", number)
        honest, twice = (rows_of(request, each) for each in tell(FAULTS["duplicate_rows"], request, node, Random(1)))
        assert len(twice) > len(honest) or not honest
        assert [row for i, row in enumerate(twice) if row not in twice[:i]] == honest
        _, mixed = tell(FAULTS["reorder_rows"], request, node, Random(1))
        assert sorted(map(json.dumps, rows_of(request, mixed))) == sorted(map(json.dumps, honest))


def test_a_fault_leaves_alone_what_it_cannot_change(node):
    request = ask("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x0"})
    assert node(request)["result"] == []
    for fault in FAULTS.values():
        if fault.change and fault.kind == "answer" and fault.name not in {"null_result", "neighbour_rows"}:
            honest, false = tell(fault, request, node, Random(1))
            assert false == honest or "relabelled" in fault.name
    odd = {"jsonrpc": "2.0", "id": 1, "result": ["no", 7, None, {"logs": 3}]}
    refused = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}
    for fault in FAULTS.values():
        if fault.kind == "answer":
            for method in sorted(fault.methods or {"eth_getLogs"}):
                assert fault.tell(ask(method, "0x1"), refused, Random(1), FaultContext()) == refused
                fault.tell(ask(method, "0x1"), odd, Random(1), FaultContext())


@pytest.mark.parametrize(("name", "pattern"), [("flip_byte", r"0x[0-9a-f]{8,}"), ("flip_digit", r"0x[0-9a-f]+")])
def test_a_flip_changes_one_value_by_one_step(chain, node, name, pattern):
    for number in NUMBERS:
        for method in ("eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getLogs", "debug_traceBlockByNumber"):
            honest, false = tell(FAULTS[name], question(chain, method, number), node, Random(number))
            texts = [re.findall(r'"[^"]*"', json.dumps(each)) for each in (honest, false)]
            changed = [pair for pair in zip(*texts, strict=True) if pair[0] != pair[1]]
            assert len(changed) == (honest != false)
            for old, new in ((a.strip('"'), b.strip('"')) for a, b in changed):
                assert re.fullmatch(pattern, old)
                if name == "flip_digit":
                    assert abs(int(old, 16) - int(new, 16)) == 1
                else:
                    pairs = zip(bytes.fromhex(old[2:]), bytes.fromhex(new[2:]), strict=True)
                    assert sum(a != b for a, b in pairs) == 1


def test_log_faults_mark_logs_and_nothing_else(chain, node):
    for method in ("eth_getLogs", "eth_getBlockReceipts", "eth_getTransactionReceipt"):
        request = question(chain, method, 25)
        _, removed = tell(FAULTS["removed_logs"], request, node, Random(1))
        assert '"removed": true' in json.dumps(removed)
        _, nulls = tell(FAULTS["null_hashes"], request, node, Random(1))
        assert '"blockHash": null' in json.dumps(nulls)
        honest, dropped = tell(FAULTS["drop_field"], request, node, Random(1))
        assert len(json.dumps(dropped)) < len(json.dumps(honest))


@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getLogs", "trace_block"])
def test_a_neighbours_rows_come_as_they_are_or_relabelled(chain, node, method):
    request = question(chain, method, 25)
    neighbours = [node(question(chain, method, n))["result"] for n in (24, 26)]
    _, false = tell(FAULTS["neighbour_rows"], request, node, Random(1))
    assert false["result"] in neighbours
    _, relabelled = tell(FAULTS["neighbour_rows_relabelled"], request, node, Random(1))
    text = json.dumps(relabelled)
    shown = set(re.findall(r'"(?:blockNumber|number)": "?(\w+)', text))
    assert {int(label, 0) for label in shown} == {25}
    strip = re.compile(r'"(?:blockNumber|number)": "?\w+"?')
    assert strip.sub("", json.dumps(relabelled["result"])) == strip.sub("", json.dumps(false["result"]))


def test_an_invented_form_is_the_same_in_every_answer_and_changes_nothing_else(chain, node):
    for number in NUMBERS:
        block, receipts = (
            tell(FAULTS["invent_type"], question(chain, method, number), node, Random(1))
            for method in ("eth_getBlockByNumber", "eth_getBlockReceipts")
        )
        for honest, false in (
            [each["result"]["transactions"] for each in block],
            [each["result"] for each in receipts],
        ):
            assert false[1:] == honest[1:]
            assert [{**row, "type": honest[0]["type"]} for row in false[:1]] == honest[:1]
            assert {row["type"] for row in false[:1]} <= {"0x55"}, number
    request = question(chain, "eth_getBlockByNumber", 25)
    honest, longer = (each["result"] for each in tell(FAULTS["add_header_member"], request, node, Random(1)))
    assert {**longer, "committeeRoot": 0} == {**honest, "committeeRoot": 0}
    _, altered = tell(FAULTS["add_header_member_and_gas"], request, node, Random(1))
    assert int(altered["result"]["gasUsed"], 16) == int(honest["gasUsed"], 16) + 1


def test_the_made_up_fork_is_the_same_in_every_answer(chain, node):
    told = {
        method: tell(FAULTS["stale_fork"], question(chain, method, 25), node, Random(1))
        for method in ("eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getLogs")
    }
    block, receipts, logs = (false["result"] for _, false in told.values())
    honest = told["eth_getBlockByNumber"][0]["result"]
    assert block["hash"] == forked(honest["hash"]) != honest["hash"]
    assert [t["hash"] for t in block["transactions"]] == [t["hash"] for t in honest["transactions"][1:]]
    assert [r["transactionHash"] for r in receipts] == [t["hash"] for t in block["transactions"]]
    assert [log for receipt in receipts for log in receipt["logs"]] == logs
    assert {row["blockHash"] for row in (*block["transactions"], *receipts, *logs)} == {block["hash"]}
    assert [int(r["transactionIndex"], 16) for r in receipts] == list(range(len(receipts)))
    assert [int(log["logIndex"], 16) for log in logs] == list(range(len(logs)))
    gas = 0
    for receipt in receipts:
        gas += int(receipt["gasUsed"], 16)
        assert int(receipt["cumulativeGasUsed"], 16) == gas


def test_every_method_of_the_table_has_an_example(chain, node):
    for method in {method for fault in FAULTS.values() for method in fault.methods or ()}:
        answer = node(question(chain, method, 25))
        assert answer.get("result"), method
        assert method not in WITH_ROWS or len(rows_of(question(chain, method, 25), answer)) > 2


# Over HTTP


@pytest.fixture(scope="module")
def devchain(chain):
    """Return the URL of a devchain that this process serves."""
    with serving(chain) as url:
        yield url


def post(url, message):
    """Return (status, body) of one HTTP response."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def result(url, message):
    status, body = post(url, message)
    assert status == 200
    return json.loads(body)


RECEIPTS = ask("eth_getBlockReceipts", hex(25))


def test_at_rate_zero_every_byte_passes(chain, devchain):
    with chaos_rpc(devchain, rate=0) as proxy:
        for method in ("eth_getLogs", "eth_getBlockByNumber", "debug_traceBlockByNumber", "eth_chainId", "eth_nothing"):
            message = question(chain, method, 25) if method != "eth_nothing" else ask(method)
            assert post(proxy.url, message) == post(devchain, message)
        for body in (b"no json", b"[]", b"[1, 2]", b"", json.dumps([RECEIPTS] * 3).encode()):
            assert post(proxy.url, body) == post(devchain, body)
        assert proxy.requests == 8
        assert not proxy.injected


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS.values() if fault.change])
def test_at_rate_one_every_applicable_request_is_hit(chain, node, devchain, name):
    fault = FAULTS[name]
    served_here = ["eth_getLogs", "eth_getBlockReceipts", "eth_chainId", "eth_getBlockByNumber"]
    method = next(each for each in served_here if fault.applies_to(each))
    busy = [n for n in NUMBERS if len(rows_of(ask(method), node(question(chain, "eth_getLogs", n)))) > 2]
    numbers = busy[:5]
    with chaos_rpc(devchain, faults=[name], rate=1.0, seed=3) as proxy:
        for number in numbers:
            request = question(chain, method, number)
            assert result(proxy.url, request) != result(devchain, request)
        assert proxy.injected == {name: len(numbers)}
        if fault.methods is not None:
            assert "result" in result(proxy.url, ask("eth_syncing"))
            assert proxy.injected.total() == len(numbers)


def test_faults_that_cannot_change_an_answer_are_not_counted(devchain):
    with chaos_rpc(devchain, faults=["truncate_tail", "removed_logs"], rate=1.0) as proxy:
        nothing = ask("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x0"})
        assert post(proxy.url, nothing) == post(devchain, nothing)
        assert (proxy.requests, proxy.injected.total()) == (1, 0)


def test_only_the_methods_asked_for_are_hit(devchain):
    with chaos_rpc(devchain, faults=["null_result"], rate=1.0, methods=["eth_getBlockReceipts"]) as proxy:
        assert result(proxy.url, RECEIPTS)["result"] is None
        assert result(proxy.url, ask("eth_chainId"))["result"] == hex(CHAIN_ID)


@pytest.mark.parametrize(
    ("name", "status", "is_json"),
    [
        ("http_429", 429, True),
        ("http_429_text", 429, False),
        ("http_500", 500, False),
        ("http_500_valid_body", 500, True),
        ("malformed_json", 200, False),
    ],
)
def test_transport_faults_spoil_the_http_answer(devchain, name, status, is_json):
    with chaos_rpc(devchain, faults=[name], rate=1.0) as proxy:
        for n in range(3):
            found, body = post(proxy.url, {**RECEIPTS, "id": n})
            assert found == status
            if is_json:
                assert json.loads(body)["id"] == n
            else:
                with pytest.raises(ValueError, match=r"."):
                    json.loads(body)
        assert proxy.injected == {name: 3}


def test_a_valid_body_is_the_right_one_and_a_refusal_asks_nobody(devchain):
    with chaos_rpc(devchain, faults=["http_500_valid_body"], rate=1.0) as proxy:
        assert post(proxy.url, RECEIPTS)[1] == post(devchain, RECEIPTS)[1]
    with chaos_rpc(None, faults=["http_429"], rate=1.0) as proxy:
        status, body = post(proxy.url, [RECEIPTS, {**RECEIPTS, "id": "b"}])
        assert status == 429
        assert [(each["id"], each["error"]["code"]) for each in json.loads(body)] == [(1, 429), ("b", 429)]


@pytest.mark.parametrize("fault", ["http_429", "http_429_text"])
def test_who_is_refused_by_a_limit_is_told_where_to_set_it(fault):
    with chaos_rpc(None, faults=[fault], rate=1.0) as proxy:
        (endpoint,) = Settings.read({"TRACE_RPC_POOL_DEV_URL": proxy.url}).pool("dev").endpoints
        for ask_it in (lambda: block_number_of(endpoint), lambda: call_all(endpoint, [("eth_chainId", [])] * 3)):
            with pytest.raises(Unavailable, match="TRACE_RPC_POOL_DEV_RPS"):
                ask_it()


def test_a_reset_is_no_answer(devchain):
    with chaos_rpc(devchain, faults=["reset"], rate=1.0) as proxy:
        with pytest.raises((ConnectionResetError, RemoteDisconnected)):
            post(proxy.url, RECEIPTS)
        assert proxy.injected == {"reset": 1}


@pytest.mark.parametrize("name", ["stall", "delay"])
def test_a_held_answer_comes_late_and_whole(devchain, name):
    with chaos_rpc(devchain, faults=[name], rate=1.0, stall_seconds=0.2, delay_seconds=0.2) as proxy:
        started = time.monotonic()
        assert post(proxy.url, RECEIPTS) == post(devchain, RECEIPTS)
        assert time.monotonic() - started >= 0.2
        assert proxy.injected == {name: 1}


def test_a_stalled_client_may_leave_and_the_proxy_end(devchain):
    started = time.monotonic()
    with chaos_rpc(devchain, faults=["stall"], rate=1.0) as proxy:
        assert proxy.held_seconds["stall"] == 3600
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=0.2)
        connection.request("POST", "/", json.dumps(RECEIPTS))
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
    assert time.monotonic() - started < 5


def test_each_element_of_a_batch_is_drawn_for_itself(chain, devchain):
    batch = [{**question(chain, "eth_getBlockReceipts", n), "id": n} for n in NUMBERS]
    with chaos_rpc(devchain, faults=["null_result"], rate=0.5, seed=4) as proxy:
        false, honest = result(proxy.url, batch), result(devchain, batch)
        assert proxy.requests == len(batch)
        changed = [(a, b) for a, b in zip(honest, false, strict=True) if a != b]
        assert 0 < len(changed) < len(batch)
        assert all(b == {**a, "result": None} for a, b in changed)
        assert proxy.injected == {"null_result": len(changed)}


def test_one_transport_fault_hits_the_whole_batch(chain, devchain):
    batch = [question(chain, "eth_getBlockReceipts", n) for n in NUMBERS]
    with chaos_rpc(devchain, faults=["http_500", "null_result"], rate=0.9, seed=4) as proxy:
        assert post(proxy.url, batch) == (500, b"internal server error")
        assert proxy.injected == {"http_500": 1}


def test_seeded_runs_repeat_whatever_the_order(chain, devchain):
    questions = [question(chain, m, n) for m in ("eth_getLogs", "eth_getBlockReceipts") for n in NUMBERS]
    faults = [name for name in USUAL if FAULTS[name].change]

    def run(seed, order):
        with chaos_rpc(devchain, faults=faults, rate=0.4, seed=seed) as proxy:
            return {json.dumps(each): post(proxy.url, each) for each in order}, proxy.injected

    once = run(5, questions)
    assert once == run(5, questions[::-1])
    assert once != run(6, questions)
    assert once[1].total() > 5


def test_asking_again_draws_again():
    source = RequestRandom(1)
    seen = [source.of_request(RECEIPTS).random() for _ in range(50)]
    assert len(set(seen)) == 50
    again = RequestRandom(1)
    assert [again.of_request({**RECEIPTS, "id": n}).random() for n in range(50)] == seen


def test_a_connection_is_kept_on_both_sides(devchain):
    with echo_node() as node, chaos_rpc(node.url, rate=0) as proxy:
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        for n in range(5):
            connection.request("POST", "/", json.dumps({**RECEIPTS, "id": n}))
            if n == 0:
                kept = connection.sock
            assert json.loads(connection.getresponse().read())["id"] == n
            assert connection.sock is kept
        connection.close()
        assert node.connections == 1


def test_settings_may_change_while_it_runs(chain, devchain):
    with chaos_rpc(None, faults=["null_result"], rate=0) as proxy:
        assert post(proxy.url, RECEIPTS)[0] == 502
        proxy.upstream_url = devchain
        assert result(proxy.url, RECEIPTS)["result"]
        proxy.rate = 1.0
        assert result(proxy.url, RECEIPTS)["result"] is None
        proxy.faults = ("error_32601",)
        assert result(proxy.url, RECEIPTS)["error"] == {"code": -32601, "message": "Method not supported"}


def test_an_unreachable_node_is_a_502_that_says_nothing_of_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with chaos_rpc(f"http://127.0.0.1:{port}/v2/s3cr3t-key", faults=["null_result", "flip_byte"], rate=1.0) as proxy:
        assert post(proxy.url, RECEIPTS) == (502, b"the node does not answer")
        assert not proxy.injected


def test_a_fork_answers_in_the_nodes_place(chain, devchain):
    with (
        serving(DevChain(8, BLOCK_COUNT)) as fork,
        chaos_rpc(devchain, faults=["stale_fork"], rate=1.0, fork_url=fork) as proxy,
    ):
        for method in ("eth_getLogs", "eth_getBlockReceipts", "debug_traceBlockByNumber"):
            request = question(chain, method, 25)
            assert result(proxy.url, request) == result(fork, request) != result(devchain, request)


def test_neighbours_of_recorded_blocks_come_from_the_node(tmp_path):
    for number in (10, 11):
        write(tmp_path, number, recorded(number))
    with replaying(tmp_path) as server, chaos_rpc(server.url, faults=["neighbour_rows"], rate=1.0) as proxy:
        # if block 10 is requested, the proxy may draw block 9: it is pruned there, so the honest answer passes
        results = [result(proxy.url, ask("eth_getBlockByNumber", "0xa", True))["result"]["number"] for _ in range(8)]
        assert set(results) == {"0xa", "0xb"}
        assert proxy.injected["neighbour_rows"] == results.count("0xb")


class _Echo(BaseHTTPRequestHandler):
    """A node that returns the request it received, with each encoding that nodes and their proxies use."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seen = {"path": self.path, "host": self.headers["host"], "authorization": self.headers["authorization"]}
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": seen}).encode()
        self.send_response(200)
        if request["method"] == "chunked":
            self.send_header("transfer-encoding", "chunked")
            body = (
                b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:]))
                + b"0\r\nt: 1\r\n\r\n"
            )
        elif request["method"] == "closing":
            self.close_connection = True
        elif request["method"] == "huge":
            self.send_header("content-length", str(wire.MAX_BODY_BYTES + 1))
        else:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Suppress the access log."""


@contextmanager
def echo_node(certificate=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads, server.connections = True, 0
    server.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize("way", ["plain", "chunked", "closing"])
def test_paths_queries_and_passwords_reach_the_node(way):
    with echo_node() as node:
        url = node.url.replace("http://", "http://user:p%40ss@") + "/v2/key?token=x"
        with chaos_rpc(url, rate=0) as proxy:
            for _ in range(3):
                seen = result(proxy.url + "/ignored", ask(way))["result"]
    assert seen["path"] == "/v2/key?token=x"
    assert seen["host"] == node.url.removeprefix("http://")
    assert seen["authorization"] == "Basic dXNlcjpwQHNz"


def test_a_node_behind_tls(tmp_path, monkeypatch):
    path = tmp_path / "node.pem"
    path.write_bytes(certificate())
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    proxied_node._tls_context.cache_clear()
    try:
        with echo_node(path) as node:
            with chaos_rpc(node.url + "/key", rate=0) as proxy:
                assert result(proxy.url, ask("plain"))["result"]["path"] == "/key"
            monkeypatch.delenv("SSL_CERT_FILE")
            proxied_node._tls_context.cache_clear()
            with chaos_rpc(node.url + "/key", rate=0) as proxy:
                assert post(proxy.url, ask("plain"))[0] == 502, "a certificate nobody vouches for"
    finally:
        proxied_node._tls_context.cache_clear()


def certificate():
    """Return a self-signed certificate and its key for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    now = datetime.now() - timedelta(days=1)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + built.public_bytes(serialization.Encoding.PEM)


def raw(port, data):
    """Return all bytes that the proxy sends to a client that sends ``request``."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_odd_clients_get_an_answer_or_the_door(devchain):
    body = json.dumps(ask("eth_chainId")).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with echo_node() as node, chaos_rpc(devchain, rate=0) as proxy:
        found = raw(proxy.port, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + chunked)
        assert found.startswith(b"HTTP/1.1 200 ")
        assert hex(CHAIN_ID).encode() in found
        waiting = b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body)
        assert raw(proxy.port, waiting + body).startswith(b"HTTP/1.1 100 ")
        assert raw(proxy.port, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
        assert b"connection: close" in raw(proxy.port, b"POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\n[]")
        too_large = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (wire.MAX_BODY_BYTES + 1)
        assert raw(proxy.port, too_large).startswith(b"HTTP/1.1 413 ")
        for babble in (b"\x00\x01", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"x\r\n" * 99999):
            assert raw(proxy.port, babble)[:12] in {b"", b"HTTP/1.1 413", b"HTTP/1.1 405"}
        proxy.upstream_url = node.url
        assert post(proxy.url, ask("huge"))[0] == 502


def test_traces_nested_deeper_than_python_recurses_pass_on():
    deep = b'{"jsonrpc":"2.0","id":1,"result":' + b'[{"calls":' * 3000 + b"[]" + b"}]" * 3000 + b"}"
    calls: dict = {}
    for _ in range(3000):
        calls = {"gasUsed": "0x5", "calls": [calls]}
    answer = {"jsonrpc": "2.0", "id": 1, "result": [calls]}
    false = FAULTS["flip_digit"].tell(ask("debug_traceBlockByNumber", "0x1"), answer, Random(1), FaultContext())
    assert false is not answer
    with pytest.raises(RecursionError):
        json.loads(deep)


# Input and output


@pytest.mark.parametrize(
    "options",
    [
        {"upstream_url": "ftp://node/s3cr3t"},
        {"upstream_url": "http://"},
        {"upstream_url": "s3cr3t"},
        {"upstream_url": "http://node:0/s3cr3t"},
        {"upstream_url": "http://node:99999/s3cr3t"},
        {"upstream_url": "http://node/s3cr3t x"},
        {"upstream_url": "http://node/s3cr3t\r\nhost: other"},
        {"fork_url": "s3cr3t"},
        {"rate": 1.01},
        {"rate": float("nan")},
        {"faults": ["http_500", "http_501"]},
    ],
)
def test_bad_settings_are_refused_without_showing_a_url(options):
    with pytest.raises(InvalidInput) as caught:
        ChaosRpc(**{"upstream_url": None} | options)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--upstream", "node/s3cr3t"],
        ["--upstream", "http://node", "--fault", "nothing"],
        ["--upstream", "http://node", "--rate", "2"],
        ["--upstream", "http://node", "--rate", "often"],
        ["--upstream", "http://node", "--port", "-1"],
    ],
)
def test_bad_arguments_are_one_error_and_exit_code_two(arguments, monkeypatch):
    monkeypatch.delenv("TRACE_CHAOS_UPSTREAM", raising=False)
    done = CliRunner().invoke(main.main, ["chaos-rpc", *arguments])
    assert done.exit_code == 2
    assert len(re.findall("^error", done.output, re.IGNORECASE | re.MULTILINE)) == 1
    assert "s3cr3t" not in done.output


def test_a_taken_port_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(main.main, ["chaos-rpc", "--upstream", "http://node", "--port", port])
    assert (done.exit_code, "the port is taken" in done.output) == (2, True)


def test_the_list_and_the_page_name_every_fault():
    listed = CliRunner().invoke(main.main, ["chaos-rpc", "--list"]).output.splitlines()
    shown = [*FAULTS.values(), *HEADS.values()]
    assert [line.split()[0] for line in listed] == [each.name for each in shown]
    assert all(line.endswith(each.description) for line, each in zip(listed, shown, strict=True))
    page = (Path(__file__).parents[2] / "docs" / "chaos_rpc.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert rows == [(fault.name, fault.description, ", ".join(methods_shown(fault))) for fault in FAULTS.values()]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|$", page, re.MULTILINE)
    assert rows == [(scenario.name, scenario.description) for scenario in HEADS.values()]


def methods_shown(fault):
    """Return a fault's methods as the page shows them: by group, if the fault has groups."""
    methods = fault.methods
    if methods is None:
        return ["any"]
    shown = ["lists"] * (methods >= LISTS) + ["blocks"] * (methods >= BLOCKS)
    grouped = (LISTS if "lists" in shown else set()) | (BLOCKS if "blocks" in shown else set())
    return [*shown, *(f"`{method}`" for method in sorted(methods - grouped))]


def test_the_command_tells_what_it_did_and_never_whom_it_asked(devchain):
    key = "s3cr3t-key"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "trace_dagster.cli.main",
            "chaos-rpc",
            "--port",
            "0",
            "--rate",
            "1",
            "--fault",
            "null_result",
        ],
        env={**os.environ, "TRACE_CHAOS_UPSTREAM": f"{devchain}/{key}?key={key}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", ready)[0]
        assert url != devchain
        assert result(url, RECEIPTS)["result"] is None
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=10)
        assert process.returncode == 0
        assert rest.strip() == "1 requests, 1 faults: 1 null_result"
        assert not out
        assert key not in ready + rest
    finally:
        process.kill()
        process.communicate()
