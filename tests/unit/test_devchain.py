"""The devchain is a valid chain: an independent implementation recomputes its roots, hashes and signatures."""

import asyncio
import json

import coincurve
import pytest
import rlp
from eth_bloom import BloomFilter
from eth_hash.auto import keccak
from trie import HexaryTrie

from trace_dagster.devchain import constants
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.server import application

BLOCKS = 240
GOLDEN_100 = "0xee0a09474e936b76fa3fe0a503f430651ce9fb1522161f66e5ae9d69469ac515"


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS)


@pytest.fixture(scope="module")
def ask(chain):
    app = application(chain)

    def post(body: bytes):
        sent = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(app({"type": "http", "method": "POST"}, receive, send))
        return json.loads(sent[1]["body"])

    def call(method, *params):
        return post(json.dumps({"jsonrpc": "2.0", "id": 9, "method": method, "params": params}).encode())

    call.post = post
    return call


def data(text):
    return bytes.fromhex(text[2:])


def number(text):
    return int(text, 16)


def block(ask, n):
    return ask("eth_getBlockByNumber", hex(n), True)["result"]


def test_the_same_seed_gives_the_same_chain_and_another_does_not(ask):
    assert block(ask, 100)["hash"] == GOLDEN_100
    assert DevChain(8, 3).blocks[2].hash != DevChain(7, 3).blocks[2].hash


HEADER = [
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty",
    "number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas", "withdrawalsRoot",
    "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash",
]  # fmt: skip
NUMBERS = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"}


def test_hashes_and_links_follow_from_what_is_served(ask):
    parent = "0x" + "00" * 32
    for n in range(BLOCKS):
        found = block(ask, n)
        fields = [number(found[key]) if key in NUMBERS else data(found[key]) for key in HEADER]
        assert "0x" + keccak(rlp.encode(fields)).hex() == found["hash"]
        assert found["parentHash"] == parent
        parent = found["hash"]


def signed_fields(t):
    access = [[data(e["address"]), [data(k) for k in e["storageKeys"]]] for e in t.get("accessList", [])]
    to = data(t["to"]) if t["to"] else b""
    tail = [number(t["gas"]), to, number(t["value"]), data(t["input"])]
    match number(t["type"]):
        case 0:
            return [number(t["nonce"]), number(t["gasPrice"]), *tail]
        case 1:
            return [number(t["chainId"]), number(t["nonce"]), number(t["gasPrice"]), *tail, access]
    fees = [number(t["maxPriorityFeePerGas"]), number(t["maxFeePerGas"])]
    fields = [number(t["chainId"]), number(t["nonce"]), *fees, *tail, access]
    if number(t["type"]) == 4:
        keys = ("chainId", "address", "nonce", "yParity", "r", "s")
        fields.append([[data(e[k]) if k == "address" else number(e[k]) for k in keys] for e in t["authorizationList"]])
    return fields


def envelope(kind, fields):
    return (bytes([kind]) if kind else b"") + rlp.encode(fields)


def root(items):
    trie = HexaryTrie({})
    for index, item in enumerate(items):
        trie[rlp.encode(index)] = item
    return "0x" + trie.root_hash.hex()


def test_transactions_are_signed_by_their_sender_and_hash_to_the_root(ask):
    kinds = set()
    for n in range(0, BLOCKS, 3):
        found, encoded = block(ask, n), []
        for t in found["transactions"]:
            kind = number(t["type"])
            kinds.add(kind)
            v, r, s = (number(t[key]) for key in "vrs")
            encoded.append(envelope(kind, [*signed_fields(t), v, r, s]))
            assert "0x" + keccak(encoded[-1]).hex() == t["hash"]
            unsigned = [*signed_fields(t), constants.CHAIN_ID, 0, 0] if kind == 0 else signed_fields(t)
            parity = v - constants.CHAIN_ID * 2 - 35 if kind == 0 else v
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([parity])
            key = coincurve.PublicKey.from_signature_and_message(
                signature, keccak(envelope(kind, unsigned)), hasher=None
            )
            assert "0x" + keccak(key.format(compressed=False)[1:])[12:].hex() == t["from"]
        assert root(encoded) == found["transactionsRoot"]
    assert kinds == {0, 1, 2, 4}


def test_receipts_hash_to_the_root_and_logs_to_the_bloom(ask):
    for n in range(0, BLOCKS, 3):
        found, encoded, bloom, index = block(ask, n), [], BloomFilter(), 0
        for receipt in ask("eth_getBlockReceipts", hex(n))["result"]:
            logs = [[data(e["address"]), [data(t) for t in e["topics"]], data(e["data"])] for e in receipt["logs"]]
            status, gas = number(receipt["status"]), number(receipt["cumulativeGasUsed"])
            encoded.append(envelope(number(receipt["type"]), [status, gas, data(receipt["logsBloom"]), logs]))
            for entry in receipt["logs"]:
                assert number(entry["logIndex"]) == index
                index += 1
                bloom.extend([data(entry["address"]), *[data(topic) for topic in entry["topics"]]])
        assert root(encoded) == found["receiptsRoot"]
        assert int(bloom) == number(found["logsBloom"])


def test_call_frames_have_one_root_per_transaction(ask):
    for n in range(0, BLOCKS, 7):
        transactions = block(ask, n)["transactions"]
        traces = ask("debug_traceBlockByNumber", hex(n), {"tracer": "callTracer"})["result"]
        assert [trace["txHash"] for trace in traces] == [t["hash"] for t in transactions]
        for trace, t in zip(traces, transactions, strict=True):
            frame = trace["result"]
            assert (frame["from"], frame["value"], frame["input"]) == (t["from"], t["value"], t["input"])
            assert frame["to"] == t["to"] or t["to"] is None


def test_books_are_sound(chain):
    for token in (constants.TOKEN, constants.WRAPPED):
        balances = chain.ledger.balances(token, BLOCKS - 1)
        assert min(balances.values()) > 0
        assert sum(balances.values()) == chain.ledger.supplies(token, BLOCKS)[-1]
    assert min(chain.ledger.stakes(BLOCKS - 1).values()) > 0
    assert [n for n in range(BLOCKS) if not chain.blocks[n].transactions]


def test_tags_follow_a_growing_head():
    chain = DevChain(7, 5)
    assert (chain.head, chain.finalized) == (4, 2)
    chain.mine()
    assert (chain.head, chain.finalized) == (5, 3)
    assert chain.blocks[5].parent_hash == chain.blocks[4].hash


def test_logs_are_filtered_as_a_node_does(ask):
    everything = ask("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x40"})["result"]
    transfers = ask(
        "eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x40", "topics": [["0x" + constants.TRANSFER.hex()]]}
    )["result"]
    assert transfers == [entry for entry in everything if entry["topics"][0] == "0x" + constants.TRANSFER.hex()]
    address = "0x" + constants.WRAPPED.hex()
    assert ask("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x40", "address": address})["result"] == [
        entry for entry in everything if entry["address"] == address
    ]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "0xffff"}], -32602),
        ("trace_block", ["0x1"], -32601),
        ("eth_getBlockByNumber", ["nonsense"], -32602),
        ("eth_getBlockByNumber", [], -32602),
        ("eth_getLogs", ["x"], -32602),
        ("debug_traceBlockByNumber", ["0xffff", {"tracer": "callTracer"}], -32602),
        ("eth_getBlockByHash", ["0x12"], -32602),
    ],
)
def test_bad_requests_are_answered_as_errors(ask, method, params, code):
    assert ask(method, *params)["error"]["code"] == code


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"[1]", b'{"method": 3}', b"[" * 100_000])
def test_hostile_bodies_never_break_the_server(ask, body):
    answer = ask.post(body)
    assert "error" in (answer[0] if isinstance(answer, list) else answer)


def test_batches_are_answered_in_order(ask):
    requests = [{"jsonrpc": "2.0", "id": n, "method": "eth_chainId"} for n in (3, 1, 2)]
    assert [answer["id"] for answer in ask.post(json.dumps(requests).encode())] == [3, 1, 2]
