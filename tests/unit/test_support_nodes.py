"""The recorded-block nodes of the acceptance tests: they serve the recorded blocks, and their errors look like a
node's.
"""

import gzip
import json
import urllib.request

import pytest

from tests.support.evm_assembly import assemble, creation_code
from tests.support.node_answers import node_rows
from tests.support.recorded_blocks import RecordedChain, RpcError, read_block
from tests.support.replay import replaying

TOKEN = "0x" + "aa" * 20
TOPIC = "0x" + "01" * 32


def recorded(number):
    """Return block ``number`` as a file holds it: two transactions, one log, three call frames."""
    log = {"address": TOKEN, "topics": [TOPIC], "data": "0x", "logIndex": "0x0"}
    return {
        "block": {
            "number": hex(number),
            "hash": f"0x{number:064x}",
            "transactions": [{"hash": "0x1"}, {"hash": "0x2"}],
        },
        "receipts": [{"transactionHash": "0x1", "logs": [log]}, {"transactionHash": "0x2", "logs": []}],
        "call_traces": [{"type": "CALL", "calls": [{"type": "CALL"}]}, {"type": "CALL"}],
    }


def write(folder, number, content):
    path = folder / f"{number}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


@pytest.fixture
def folder(tmp_path):
    """Return a folder with blocks 10 and 12, a chain with a gap."""
    for number in (10, 12):
        write(tmp_path, number, recorded(number))
    return tmp_path


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_a_batch_comes_back_in_order_with_its_ids(folder):
    with replaying(folder) as server:
        calls = [{"id": n, "method": m, "params": []} for n, m in ((7, "eth_chainId"), (8, "eth_blockNumber"))]
        answers = post(server.url, calls)
    assert [(answer["id"], answer["result"]) for answer in answers] == [(7, "0x1"), (8, "0xc")]


def test_unknown_methods_and_broken_requests_are_errors_not_crashes(folder):
    with replaying(folder) as server:
        assert post(server.url, {"id": 1, "method": "trace_block", "params": ["0xa"]})["error"]["code"] == -32601
        assert post(server.url, [])["error"]["code"] == -32600
        assert (
            post(server.url, {"id": 1, "method": "eth_getBlockByNumber", "params": ["zz"]})["error"]["code"] == -32602
        )
        assert server.methods_served["trace_block"] == 1


def test_row_counts_follow_from_the_answers(folder):
    def rpc(method, *params):
        return chain.call(method, list(params))

    chain = RecordedChain(folder)
    counts = {name: node_rows(rpc, name, 12, 13) for name in ("blocks", "transactions", "logs", "geth_calls")}
    assert counts == {"blocks": 1, "transactions": 2, "logs": 1, "geth_calls": 3}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [({}, 1), ({"address": TOKEN.upper().replace("0X", "0x")}, 1), ({"address": ["0x00"]}, 0),
     ({"topics": [[TOPIC]]}, 1), ({"topics": [None]}, 1), ({"topics": ["0x02"]}, 0), ({"topics": [TOPIC, None]}, 0)],
)  # fmt: skip
def test_log_filters(folder, wanted, found):
    chain = RecordedChain(folder)
    assert len(chain.call("eth_getLogs", [{"fromBlock": "0xa", "toBlock": "0xa", **wanted}])) == found


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("eth_getLogs", [{"fromBlock": "0xa", "toBlock": "0xc"}], "pruned history"),
        ("eth_getLogs", [{"fromBlock": "0xa", "toBlock": "0xd"}], "beyond current head"),
        ("eth_getLogs", [{"fromBlock": "0xc", "toBlock": "0xa"}], "invalid block range"),
        ("debug_traceBlockByNumber", ["0xb", {"tracer": "callTracer"}], "block #11 not found"),
        ("debug_traceBlockByNumber", ["0xa"], "tracer not found"),
    ],
)
def test_blocks_it_does_not_hold_are_said_as_a_node_says_them(folder, method, params, said):
    with pytest.raises(RpcError, match=said):
        RecordedChain(folder).call(method, params)


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds block 10"):
        read_block(write(tmp_path, 11, recorded(10)))
    with pytest.raises(ValueError, match="lacks receipts"):
        read_block(write(tmp_path, 10, {**recorded(10), "receipts": []}))


def test_assembly_of_labels_and_literals():
    push_zero, push_label, jump, push_literal, end = "6000", "610009", "57", "611234", "5b00"
    code = assemble("0 @end JUMPI 0x1234 end: STOP ; a comment")
    assert code.hex() == push_zero + push_label + jump + push_literal + end
    assert creation_code(b"\x00").hex() == "61000180600c6000396000f300"
