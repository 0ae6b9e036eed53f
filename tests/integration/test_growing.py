"""The growing chains of the tests: devchain and anvil grow, fork and announce heads, and the record of them is true."""

import json
import time
import urllib.request
from contextlib import contextmanager

import pytest
from websockets.sync.client import connect

from tests.support.growing import GrowingChain, busy_anvil, dev_node, growing
from trace_dagster.devchain.chain import BusyBlocks, DevChain

TRANSACTIONS, LOGS = 20, 40


@contextmanager
def devchain():
    chain = DevChain(7, 5)
    chain.busy = BusyBlocks(TRANSACTIONS, LOGS)
    with dev_node(chain) as node:
        yield node


@pytest.fixture(params=[devchain, busy_anvil], ids=["devchain", "anvil"])
def node(request):
    with request.param() as found:
        yield found


def call(url, method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["result"]


def test_the_record_says_what_was_canonical_when(node):
    chain = GrowingChain(node)
    old = chain.mine(8)
    kept = chain.ancestry(old.hash)[old.number - 4]
    before = time.monotonic()
    new = chain.reorg(4, 6)
    after = time.monotonic()
    assert (new.number, chain.head) == (old.number + 2, new)
    assert [chain.was_canonical(old.hash, since) for since in (before, after)] == [True, False]
    assert chain.was_canonical(new.hash, after)
    assert chain.was_canonical(kept, after)
    assert not chain.was_canonical(bytes(32), before)
    assert before < chain.shown_at(new.hash) < after
    ancestry = chain.ancestry(new.hash)
    assert set(ancestry) == set(range(new.number + 1))
    assert ancestry[old.number - 4] == kept
    assert ancestry[old.number - 3] != chain.ancestry(old.hash)[old.number - 3]
    assert chain.reorg(3, 1).number == new.number - 2


def test_blocks_of_every_branch_are_busy_and_as_the_node_shows_them(node):
    chain = GrowingChain(node)
    chain.mine(4)
    head = chain.reorg(2, 3)
    for number in range(head.number - 4, head.number + 1):
        block = call(chain.url, "eth_getBlockByNumber", hex(number), False)
        receipts = call(chain.url, "eth_getBlockReceipts", hex(number))
        assert block["hash"] == "0x" + chain.ancestry(head.hash)[number].hex()
        assert len(block["transactions"]) == TRANSACTIONS
        assert sum(len(receipt["logs"]) for receipt in receipts) == LOGS


def test_heads_are_announced_while_the_chain_grows(node):
    with growing(node, interval_seconds=0.05) as chain, connect(chain.websocket_url) as socket:
        socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
        socket.recv(10)
        heads = [json.loads(socket.recv(10))["params"]["result"] for _ in range(5)]
        numbers = [int(head["number"], 16) for head in heads]
        assert numbers == list(range(numbers[0], numbers[0] + 5))
        with chain.paused():
            head = chain.head
            assert call(chain.url, "eth_blockNumber") == hex(head.number)
            assert bytes.fromhex(heads[-1]["hash"][2:]) in chain.ancestry(head.hash).values()
    assert chain.head.number >= numbers[-1]
    ended = chain.head
    time.sleep(0.15)
    assert call(chain.url, "eth_blockNumber") == hex(ended.number)


def test_an_error_of_the_node_is_raised_at_the_end():
    class Broken:
        url = ""

        def links(self, first):
            return []

        def mine(self):
            raise RuntimeError("no more blocks")

    with pytest.raises(RuntimeError, match="no more blocks"), growing(Broken(), interval_seconds=0.01):
        time.sleep(0.1)
