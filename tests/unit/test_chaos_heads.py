"""The chaos proxy's head scenarios: what a client sees of the node's newest blocks, over HTTP and WebSocket."""

import json
import urllib.request
from collections import Counter

import pytest
from websockets.exceptions import InvalidMessage
from websockets.sync.client import connect

from tests.support.nodes import forked, serving
from trace_dagster.chaos_rpc.heads import HEADS
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import InvalidInput

BLOCKS = 40
HEAD = BLOCKS - 1
NUMBERED = ("eth_getBlockByNumber", "eth_getBlockReceipts")


@pytest.fixture
def chain():
    return DevChain(7, BLOCKS)


@pytest.fixture
def node(chain):
    with serving(chain) as url:
        yield url


def post(url, message):
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(message).encode()), timeout=10) as answer:
        return json.load(answer)


def call(url, method, *params):
    return post(url, {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)})["result"]


def batch(url, *calls):
    requests = [{"id": f"n{i}", "method": method, "params": list(params)} for i, (method, *params) in enumerate(calls)]
    answers = post(url, requests)
    assert [answer["id"] for answer in answers] == [request["id"] for request in requests]
    return [answer["result"] for answer in answers]


def heads(url):
    """Return the number of each tag, by eth_blockNumber and by block."""
    tags = [call(url, "eth_getBlockByNumber", tag, False)["number"] for tag in ("latest", "safe", "finalized")]
    return [int(number, 16) for number in (call(url, "eth_blockNumber"), *tags)]


def nothing_of(url, block):
    """Return whether a node has nothing of a block, whatever it is asked."""
    number, block_hash = hex(block.number), "0x" + block.hash.hex()
    found = [
        call(url, "eth_getBlockByNumber", number, True),
        call(url, "eth_getBlockReceipts", number),
        call(url, "eth_getBlockByHash", block_hash, False),
        call(url, "eth_getTransactionReceipt", "0x" + block.transactions[0].hash.hex()),
    ]
    return found == [None] * 4 and call(url, "eth_getLogs", {"fromBlock": number, "toBlock": number}) == []


def test_a_node_that_is_behind_has_an_older_head_and_nothing_above(chain, node):
    assert chain.blocks[HEAD].log_count
    with chaos_rpc(node, rate=0, head="behind", head_blocks=3) as proxy:
        assert heads(proxy.url) == [HEAD - 3, HEAD - 3, HEAD - 4, HEAD - 5]
        for above in chain.blocks[-3:]:
            assert nothing_of(proxy.url, above)
        for method in NUMBERED:
            assert call(proxy.url, method, hex(HEAD - 3), True) == call(node, method, hex(HEAD - 3), True)
        assert call(proxy.url, "eth_getLogs", {"fromBlock": hex(HEAD - 5)}) == call(
            node, "eth_getLogs", {"fromBlock": hex(HEAD - 5), "toBlock": hex(HEAD - 3)}
        )
        chain.mine()
        assert heads(proxy.url)[0] == HEAD - 2
        proxy.head = None
        assert heads(proxy.url) == heads(node)
        assert proxy.injected["behind"] > 10


def test_a_syncing_node_stands_still_and_says_so(chain, node):
    with chaos_rpc(node, rate=0, head="syncing", head_blocks=2) as proxy:
        assert heads(proxy.url)[0] == HEAD - 2
        chain.mine()
        assert heads(proxy.url)[0] == HEAD - 2
        found = call(proxy.url, "eth_syncing")
        assert (found["currentBlock"], found["highestBlock"]) == (hex(HEAD - 2), hex(HEAD + 1))
        proxy.head = "syncing"
        assert heads(proxy.url)[0] == HEAD - 1
        proxy.head = None
        assert call(proxy.url, "eth_syncing") is False


def test_two_backends_answer_in_turn(chain, node):
    with chaos_rpc(node, rate=0, head="two_backends", head_blocks=4) as proxy:
        assert [int(call(proxy.url, "eth_blockNumber"), 16) for _ in range(4)] == [HEAD, HEAD - 4] * 2
        batches = [batch(proxy.url, ("eth_blockNumber",), ("eth_blockNumber",)) for _ in range(4)]
        assert batches == [[hex(HEAD)] * 2, [hex(HEAD - 4)] * 2] * 2
        proxy.head = "two_backends_mixed"
        assert batch(proxy.url, *[("eth_blockNumber",)] * 4) == [hex(HEAD), hex(HEAD - 4)] * 2


def test_the_second_backend_is_the_fork_if_there_is_one(chain, node):
    other = forked(7, BLOCKS - 5, BLOCKS)
    hashes = ["0x" + each.blocks[HEAD].hash.hex() for each in (chain, other)]
    with serving(other) as fork, chaos_rpc(node, rate=0, head="two_backends_mixed", fork_url=fork) as proxy:
        block, receipts = batch(
            proxy.url, ("eth_getBlockByNumber", hex(HEAD), False), ("eth_getBlockReceipts", hex(HEAD))
        )
        assert [block["hash"], receipts[0]["blockHash"]] == hashes
        assert proxy.injected == {"two_backends_mixed": 1}


def test_a_new_block_is_announced_before_it_is_found(chain, node):
    with chaos_rpc(node, rate=0, head="null_new_block", head_blocks=1) as proxy:
        assert heads(proxy.url) == heads(node)
        assert nothing_of(proxy.url, chain.blocks[HEAD])
        chain.mine()
        assert call(proxy.url, "eth_getBlockReceipts", hex(HEAD)) == call(node, "eth_getBlockReceipts", hex(HEAD))


def test_bodies_that_are_no_requests_pass_unchanged(node):
    with chaos_rpc(node, rate=0, head="behind") as proxy:
        for message in ([], [1], 7, {"id": 1}):
            assert post(proxy.url, message) == post(node, message)


def test_faults_come_on_top_of_a_scenario(node):
    options = {"faults": ["empty_list"], "rate": 1.0, "methods": ["eth_getBlockReceipts"]}
    with chaos_rpc(node, head="behind", head_blocks=2, **options) as proxy:
        assert call(proxy.url, "eth_getBlockReceipts", hex(HEAD - 3)) == []
        assert call(proxy.url, "eth_getBlockReceipts", hex(HEAD)) is None
        assert int(call(proxy.url, "eth_blockNumber"), 16) == HEAD - 2


def test_an_unreachable_node_is_a_502_in_a_scenario_too():
    with chaos_rpc(None, rate=0, head="behind") as proxy, pytest.raises(urllib.error.HTTPError, match="502") as error:
        call(proxy.url, "eth_blockNumber")
    error.value.close()


def test_unknown_scenarios_are_refused(node):
    with pytest.raises(InvalidInput, match="no such head scenario"), chaos_rpc(node, head="sideways"):
        pass


ANNOUNCED = {
    None: [1, 2, 3, 4],
    "behind": [1, 2],
    "syncing": [],
    "two_backends": [1, 2, 3, 4],
    "two_backends_mixed": [1, 2, 3, 4],
    "null_new_block": [1, 2, 3, 4],
    "repeated_heads": [1, 1, 2, 2, 3, 3, 4, 4],
    "rewound_heads": [1, 1, 2, 1, 3, 1, 4, 2],
    "silent_heads": [],
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_a_subscription_announces_heads_as_the_scenario_says(chain, node, name):
    assert set(ANNOUNCED) == {None, *HEADS}
    with chaos_rpc(node, rate=0, head=name, head_blocks=2) as proxy, connect(proxy.url.replace("http", "ws")) as client:
        client.send(json.dumps({"id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
        subscription = json.loads(client.recv(10))["result"]
        for _ in range(4):
            chain.mine()
        client.send(json.dumps({"id": 2, "method": "eth_unsubscribe", "params": [subscription]}))
        found = []
        while "params" in (message := json.loads(client.recv(10))):
            found.append(int(message["params"]["result"]["number"], 16) - HEAD)
        assert message["result"] is True
    assert found == ANNOUNCED[name]


def test_calls_over_a_websocket_are_answered_as_over_http(chain, node):
    with chaos_rpc(node, faults=["null_result"], rate=0, head="behind", head_blocks=2) as proxy:
        with connect(proxy.url.replace("http", "ws")) as client:
            client.send(['{"id": 1, "method": ', '"eth_blockNumber"}'])  # one message in two frames
            assert json.loads(client.recv(10))["result"] == hex(HEAD - 2)
            proxy.rate = 1.0
            client.send(json.dumps({"id": 1, "method": "eth_blockNumber"}))
            assert json.loads(client.recv(10))["result"] is None
            assert client.ping().wait(10)
        assert proxy.injected == Counter(behind=2, null_result=1)


def test_a_websocket_without_a_node_closes():
    with chaos_rpc(None) as proxy, pytest.raises(InvalidMessage):
        connect(proxy.url.replace("http", "ws"))
