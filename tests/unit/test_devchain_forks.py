"""The devchain at its head: reorganisations, tags, large blocks, and subscriptions to new heads."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict

import pytest
from websockets.sync.client import connect

from tests.support.nodes import serving
from trace_dagster.devchain import constants
from trace_dagster.devchain.chain import BusyBlocks, DevChain
from trace_dagster.devchain.server import DevNodeMethods

BLOCKS = 60


@pytest.fixture
def chain():
    return DevChain(7, BLOCKS)


def asking(chain, **options):
    """Return a function that calls a method of the chain's node, and returns its answer."""
    methods = DevNodeMethods(chain, **options)
    return lambda method, *params: json.loads(methods.answer({"id": 1, "method": method, "params": list(params)}))


def hexadecimal(data):
    return "0x" + data.hex()


def state(chain):
    """Return what the books say after the newest block, and the nonce of each account."""
    books, head = chain.ledger, chain.head
    balances = [books.balances(token, head) for token in (constants.TOKEN, constants.WRAPPED)]
    nonces = [account.nonce for account in chain._accounts]
    return balances, books.stakes(head), books.supplies(constants.TOKEN, head + 1), chain.native_supply(head), nonces


def assert_linked(chain):
    for parent, block in zip(chain.blocks, chain.blocks[1:], strict=False):
        assert (block.number, block.parent_hash) == (parent.number + 1, parent.hash)
        assert block.timestamp >= parent.timestamp


@pytest.mark.parametrize(("depth", "blocks"), [(1, 1), (1, 3), (7, 7), (20, 5), (20, 26), (BLOCKS - 1, BLOCKS)])
def test_a_reorganisation_replaces_the_last_blocks(chain, depth, blocks):
    before = list(chain.blocks)
    new_head = chain.reorg(depth, blocks)
    kept = BLOCKS - depth
    assert chain.blocks[:kept] == before[:kept]
    assert (chain.blocks[-1], len(chain.blocks)) == (new_head, kept + blocks)
    assert not {block.hash for block in chain.blocks[kept:]} & {block.hash for block in before}
    assert_linked(chain)
    assert set(chain.by_hash) == {block.hash for block in chain.blocks}
    assert chain.locations == {
        transaction.hash: (block, index)
        for block in chain.blocks
        for index, transaction in enumerate(block.transactions)
    }


@pytest.mark.parametrize(("depth", "blocks"), [(0, 1), (BLOCKS, 1), (1, -1)])
def test_blocks_that_the_chain_does_not_have_cannot_be_replaced(chain, depth, blocks):
    with pytest.raises(ValueError, match="cannot replace"):
        chain.reorg(depth, blocks)
    assert chain.forks == 0


def test_the_books_are_those_of_the_blocks_that_remain(chain):
    states = {}
    for _ in range(40):
        states[chain.head] = state(chain)
        chain.mine()
    for depth in (3, 30, 1):
        chain.reorg(depth, 0)
        assert state(chain) == states[chain.head]


def test_each_sender_counts_its_transactions_through_every_fork(chain):
    for depth, blocks in ((5, 6), (12, 12), (3, 9), (30, 31)):
        chain.reorg(depth, blocks)
    nonces = defaultdict(list)
    for block in chain.blocks:
        for transaction in block.transactions:
            nonces[transaction.sender].append(transaction.nonce)
            nonces[transaction.sender] += [entry[2] for entry in transaction.authorizations]
    assert all(found == list(range(len(found))) for found in nonces.values())


def test_forks_depend_on_the_seed_and_on_earlier_forks_only(chain):
    other = DevChain(7, BLOCKS)
    for each in (chain, other):
        each.reorg(4, 4)
        each.reorg(4, 4)
        each.mine()
    assert [block.hash for block in chain.blocks] == [block.hash for block in other.blocks]


def test_a_first_fork_has_other_transactions_and_a_second_one_repeats_them(chain):
    ask = asking(chain)
    original = chain.blocks[-5:]
    transactions = {transaction.hash for block in original for transaction in block.transactions}
    chain.reorg(5, 5)
    gone = [ask("eth_getTransactionByHash", hexadecimal(each))["result"] for each in transactions]
    assert gone == [None] * len(transactions)
    chain.reorg(5, 5)
    repeated = {transaction.hash for block in chain.blocks[-5:] for transaction in block.transactions}
    assert repeated == transactions
    hashes = {hexadecimal(block.hash) for block in chain.blocks[-5:]}
    found = [ask("eth_getTransactionReceipt", hexadecimal(each))["result"] for each in transactions]
    assert {receipt["blockHash"] for receipt in found} <= hashes


def test_answers_by_number_are_of_the_new_branch_and_by_hash_of_that_block(chain):
    ask = asking(chain)
    number, old = hex(BLOCKS - 1), hexadecimal(chain.blocks[-1].hash)
    before = [ask(method, number)["result"] for method in ("eth_getBlockByNumber", "eth_getBlockReceipts")]
    assert ask("eth_getBlockReceipts", old)["result"] == ask("eth_getBlockReceipts", {"blockHash": old})["result"]
    chain.keeps_orphans = True
    new = hexadecimal(chain.reorg(3, 3).hash)
    block, receipts = ask("eth_getBlockByNumber", number)["result"], ask("eth_getBlockReceipts", number)["result"]
    assert (block["hash"], {receipt["blockHash"] for receipt in receipts}) == (new, {new})
    assert ask("eth_getBlockReceipts", new)["result"] == receipts
    assert [ask("eth_getBlockByHash", old)["result"], ask("eth_getBlockReceipts", old)["result"]] == before
    assert {log["blockHash"] for log in ask("eth_getLogs", {"fromBlock": number})["result"]} == {new}
    assert {log["blockHash"] for log in ask("eth_getLogs", {"blockHash": old})["result"]} == {old}


def test_a_node_forgets_abandoned_blocks_unless_it_keeps_them(chain):
    ask, old = asking(chain), hexadecimal(chain.blocks[-1].hash)
    chain.reorg(1, 1)
    assert ask("eth_getBlockByHash", old)["result"] is None
    assert ask("eth_getBlockReceipts", old)["result"] is None


@pytest.mark.parametrize(("behind", "expected"), [(2, (59, 58, 57)), (0, (59, 59, 59)), (32, (59, 43, 27))])
def test_latest_safe_and_finalized_are_apart(chain, behind, expected):
    chain.final_behind = behind
    ask = asking(chain)
    tags = [ask("eth_getBlockByNumber", tag, False)["result"]["number"] for tag in ("latest", "safe", "finalized")]
    assert tuple(int(tag, 16) for tag in tags) == expected


def test_busy_blocks_have_exactly_their_size_and_true_books(chain):
    chain.busy = BusyBlocks(20, 40)
    for _ in range(12):
        block = chain.mine()
        assert (len(block.transactions), block.log_count) == (20, 40)
    chain.busy = BusyBlocks(3, 1)
    block = chain.mine()
    assert [len(transaction.logs) for transaction in block.transactions] == [0, 0, 1]
    balances = chain.ledger.balances(constants.TOKEN, chain.head)
    assert sum(balances.values()) == chain.ledger.supplies(constants.TOKEN, chain.head + 1)[-1]
    assert min(balances.values()) > 0


def test_readers_never_see_half_of_a_reorganisation(chain):
    seen, ended = set(), threading.Event()

    def read():
        while not ended.is_set():
            seen.add(len(chain.blocks))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(5):
        chain.reorg(20, 20)
    ended.set()
    reader.join(10)
    assert seen == {BLOCKS}


def test_a_chain_is_changed_over_rpc_only_if_that_is_allowed(chain):
    assert asking(chain)("dev_mine", 1)["error"]["code"] == -32601
    ask = asking(chain, allow_reorgs=True)
    assert ask("dev_mine", 2)["result"] == hexadecimal(chain.blocks[BLOCKS + 1].hash)
    assert ask("dev_reorg", 3, "0x5")["result"] == hexadecimal(chain.blocks[-1].hash)
    assert (chain.head, chain.forks) == (BLOCKS + 3, 1)
    for wrong in ([], [1], [0, 1], [1000, 1], [1, -1], ["x", 1]):
        assert ask("dev_reorg", *wrong)["error"]["code"] == -32602
    assert (chain.head, chain.forks) == (BLOCKS + 3, 1)


@pytest.fixture
def socket(chain):
    with serving(chain) as url, connect(url.replace("http", "ws") + "/") as found:
        yield found


def call(socket, method, *params):
    socket.send(json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}))
    answer = json.loads(socket.recv(10))
    assert answer["id"] == method
    return answer.get("result", answer.get("error"))


def heads(socket, count):
    found = [json.loads(socket.recv(10))["params"] for _ in range(count)]
    return [(head["subscription"], head["result"]["hash"], head["result"]["parentHash"]) for head in found]


def told(subscription, *blocks):
    return [(subscription, hexadecimal(block.hash), hexadecimal(block.parent_hash)) for block in blocks]


def test_subscribers_get_each_new_head_in_order(chain, socket):
    subscription = call(socket, "eth_subscribe", "newHeads")
    assert heads_after(socket, chain.mine) == told(subscription, chain.blocks[-1])
    chain.reorg(3, 4)
    assert heads(socket, 4) == told(subscription, *chain.blocks[-4:])
    assert call(socket, "eth_unsubscribe", subscription) is True
    assert call(socket, "eth_unsubscribe", subscription) is False
    chain.mine()
    assert call(socket, "eth_blockNumber") == hex(chain.head)  # and no head came before this answer


def heads_after(socket, mine):
    mine()
    return heads(socket, 1)


def test_a_head_has_the_members_of_its_block(chain, socket):
    call(socket, "eth_subscribe", "newHeads")
    chain.mine()
    head = json.loads(socket.recv(10))["params"]["result"]
    block = call(socket, "eth_getBlockByNumber", "latest", False)
    assert head == {name: block[name] for name in head}
    assert block.keys() - head.keys() == {"transactions", "uncles", "size", "totalDifficulty", "withdrawals"}


def test_batches_and_errors_come_over_a_websocket_too(socket):
    socket.send(json.dumps([{"id": n, "method": "eth_chainId"} for n in (3, 1)]))
    assert [answer["id"] for answer in json.loads(socket.recv(10))] == [3, 1]
    assert call(socket, "eth_subscribe", "logs")["code"] == -32602
    assert call(socket, "eth_subscribe")["code"] == -32602
    socket.send("{")
    assert json.loads(socket.recv(10))["error"]["code"] == -32700


def post(url, method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
        return json.load(answer)["result"]


def test_a_growing_chain_has_real_times_after_the_seeded_blocks():
    options = "--port 0 --blocks 60 --block-interval-seconds 0.05 --busy 20 40 --final-behind 5 --allow-reorgs"
    command = [sys.executable, "-m", "trace_dagster.devchain", *options.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{process.stdout.readline().partition('port=')[2].strip()}"
            with connect(url.replace("http", "ws")) as socket:
                call(socket, "eth_subscribe", "newHeads")
                socket.recv(10)
            assert post(url, "eth_getBlockByNumber", hex(59), False)["hash"] == hexadecimal(
                DevChain(7, 60).blocks[59].hash
            )
            post(url, "dev_reorg", 1, 2)
            block = post(url, "eth_getBlockByNumber", "latest", True)
        finally:
            process.kill()
    assert abs(int(block["timestamp"], 16) - time.time()) < 5
    assert len(block["transactions"]) == 20
