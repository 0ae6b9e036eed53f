"""The imitated nodes: their encoder against real blocks and public libraries, their chains, their manners."""

import ast
import json
import urllib.request
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import rlp as public_rlp
from eth_bloom import BloomFilter
from eth_hash.auto import keccak as public_keccak
from trie import HexaryTrie

from tests.support.imitated import encoding
from tests.support.imitated.chain import build
from tests.support.imitated.chains import ARBITRUM, BASE, IMITATED, POLYGON
from tests.support.imitated.headers import header_hash
from tests.support.imitated.hexadecimal import octets, quantity
from tests.support.imitated.node import ImitatedNode, Manner, imitating
from tests.support.imitated.real_chains import real_chains
from tests.support.imitated.transactions import kind_of
from tests.support.left_out import REAL_CHAINS, leave_out
from tests.support.recorded_blocks import RpcError

PACKAGE = Path(encoding.__file__).parent
REAL = {real.name: real for real in real_chains()}


@pytest.mark.parametrize("name", REAL or ["none"])
def test_real_blocks_come_out_of_this_encoder(name):
    if not REAL:
        leave_out(REAL_CHAINS)
    real = REAL[name]
    found = {part: real.recomputed(part).hex() for part, is_checked in real.checked.items() if is_checked}
    assert found == {part: real.block[part].removeprefix("0x") for part in found}
    assert found


def test_no_code_of_the_product_takes_part():
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("trace_dagster")], path.name


class TestEncoding:
    @pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 127, 128, 129, 300])
    def test_the_root_of_a_list_is_that_of_a_public_library(self, count):
        rng = Random(count)
        leaves = [rng.randbytes(rng.choice((1, 5, 31, 32, 33, 500))) for _ in range(count)]
        trie = HexaryTrie({})
        for index, leaf in enumerate(leaves):
            trie[public_rlp.encode(index)] = leaf
        assert encoding.list_root(leaves) == trie.root_hash

    @pytest.mark.parametrize(
        "item", [0, 1, 127, 128, 2**256 - 1, b"", b"\0", b"\x7f", b"\x80", b"x" * 55, b"x" * 70_000]
    )
    def test_rlp_is_that_of_a_public_library(self, item):
        for each in (item, [item], [[item] * 30, []]):
            assert encoding.rlp(each) == public_rlp.encode(each)

    def test_a_bloom_is_that_of_a_public_library(self):
        entries = [Random(5).randbytes(size) for size in (20, 32, 32)]
        assert encoding.bloom(entries) == int(BloomFilter.from_iterable(entries))
        assert encoding.keccak(b"abc") == public_keccak(b"abc")


@pytest.fixture(scope="module")
def nodes():
    return {key: ImitatedNode(imitated.recipe, imitated.manner) for key, imitated in IMITATED.items()}


class TestChains:
    @pytest.mark.parametrize("key", IMITATED)
    def test_blocks_are_linked_and_hold_what_they_say(self, nodes, key):
        blocks = list(nodes[key].blocks.values())
        for before, block in pairwise(blocks):
            assert block.block["parentHash"] == before.block["hash"]
        for block in blocks:
            assert [quantity(log["logIndex"]) for log in block.logs()] == list(range(len(block.logs())))
            hashes = [each["hash"] for each in block.block["transactions"]]
            assert hashes == [receipt["transactionHash"] for receipt in block.receipts]
            assert all(each["blockHash"] == block.block["hash"] for each in block.receipts + block.logs())
        full = [block for block in blocks if len(block.receipts) > 2]
        assert full
        assert all(block.logs() for block in full)

    @pytest.mark.parametrize("key", ["base", "polygon", "ethereum_frontier"])
    def test_a_seed_gives_the_same_blocks_again(self, nodes, key):
        recipe = IMITATED[key].recipe
        shown = [block.block for block in nodes[key].blocks.values()]
        assert [block.block for block in build(replace(recipe))] == shown
        assert [block.block for block in build(replace(recipe, seed=8))] != shown

    def test_every_type_of_a_chain_occurs(self, nodes):
        types = {key: _types(node) for key, node in nodes.items()}
        assert set(types["base"]) == {0, 1, 2, 4, 0x7E}
        assert set(types["arbitrum"]) == {0, 1, 2, 0x64, 0x65, 0x66, 0x68, 0x69, 0x6A}
        assert set(types["polygon"]) == {0, 1, 2, 0x7F}
        assert set(types["celo"]) == {0, 1, 2, 4, 0x7B, 0x7E}
        assert set(types["scroll"]) == {0, 1, 2, 0x7E}
        assert set(types["unlisted_type"]) == {0, 1, 2, 4, 0x55}

    def test_the_transactions_of_a_system_begin_or_end_each_block(self, nodes):
        for key, index, kind in (("base", 0, 0x7E), ("arbitrum", 0, 0x6A)):
            assert {kind_of(block.receipts[index]) for block in nodes[key].blocks.values()} == {kind}
        sprints = {number: block for number, block in nodes["polygon"].blocks.items() if number % 16 == 0}
        assert [kind_of(block.receipts[-1]) for block in sprints.values()] == [0, 0x7F, 0x7F]
        before = next(iter(sprints.values()))
        assert before.receipts[-1]["to"] == before.receipts[-1]["from"] == "0x" + "00" * 20
        assert len(before.raw) == len(before.receipts) - 1

    def test_each_client_shows_the_same_seal_in_its_own_way(self, nodes):
        keys = ("gnosis_nethermind", "gnosis_erigon", "gnosis_openethereum")
        first = IMITATED[keys[0]].recipe.first
        shown = [nodes[key].call("eth_getBlockByNumber", [hex(first), True]) for key in keys]
        assert len({block["hash"] for block in shown}) == 1
        assert [header_hash(block, "aura").hex() for block in shown[:2]] == [shown[0]["hash"][2:]] * 2
        assert ["nonce" in block for block in shown] == [False, True, False]
        assert [len(octets(item)) for item in shown[2]["sealFields"]] == [5, 67]


class TestManners:
    def test_a_state_sync_has_raw_bytes_that_give_its_hash_and_no_entries_in_json(self, nodes):
        node = nodes["polygon"]
        number, block = next(
            (number, block) for number, block in node.blocks.items() if kind_of(block.receipts[-1]) == 0x7F
        )
        index = len(block.receipts) - 1
        raw = node.call("eth_getRawTransactionByBlockNumberAndIndex", [hex(number), hex(index)])
        assert encoding.keccak(octets(raw)) == octets(block.receipts[-1]["transactionHash"])
        assert not [name for name in block.block["transactions"][-1] if "sync" in name.lower()]
        assert len(node.call("debug_traceBlockByNumber", [hex(number), {"tracer": "callTracer"}])) == index

    def test_receipts_before_byzantium_have_a_root_or_a_made_up_status(self, nodes):
        honest, made_up = nodes["ethereum_frontier"], nodes["ethereum_made_up"]
        for node, has, lacks in ((honest, "root", "status"), (made_up, "status", "root")):
            for number in node.blocks:
                receipts = node.call("eth_getBlockReceipts", [hex(number)])
                assert all(has in receipt and lacks not in receipt for receipt in receipts)
        across = nodes["ethereum_byzantium"]
        assert "root" in across.call("eth_getBlockReceipts", [hex(across.recipe.first)])[0]
        assert "status" in across.call("eth_getBlockReceipts", [hex(across.head)])[0]

    def test_transactions_have_a_chain_id_only_since_eip_155(self, nodes):
        node = nodes["ethereum_frontier"]
        with_id = {number: "chainId" in block.block["transactions"][0] for number, block in node.blocks.items()}
        assert not any(has for number, has in with_id.items() if number < 2_675_000)
        assert any(with_id.values())

    def test_block_0_and_empty_blocks(self, nodes):
        node = nodes["monad"]
        assert node.call("eth_getBlockReceipts", ["0x0"]) is None
        with pytest.raises(RpcError, match="genesis is not traceable"):
            node.call("debug_traceBlockByNumber", ["0x0", {"tracer": "callTracer"}])
        assert node.call("debug_traceBlockByNumber", ["0x1", {"tracer": "callTracer"}]) == []

    def test_members_are_left_out_where_a_node_has_no_use_for_them(self, nodes):
        def shown(key):
            node = nodes[key]
            return node.call("eth_getBlockByNumber", [hex(node.recipe.first), True])["transactions"]

        for each in shown("base_reth"):
            members = {"r", "s", "gasPrice"} & set(each)
            assert members == (set() if kind_of(each) == 0x7E else {"r", "s", "gasPrice"})
            assert ("v" in each) == (kind_of(each) == 0)
        assert {kind_of(each) for each in shown("without_type") if "type" not in each} == {0}
        assert {each.get("type") for each in shown("without_type")} > {None, "0x2"}

    def test_log_indices_may_begin_at_0_in_each_transaction(self, nodes):
        node = nodes["log_index"]
        first = hex(node.recipe.first)
        receipts = node.call("eth_getBlockReceipts", [first])
        assert [[quantity(log["logIndex"]) for log in each["logs"]] for each in receipts] == [
            list(range(len(each["logs"]))) for each in receipts
        ]
        logs = node.call("eth_getLogs", [{"fromBlock": first, "toBlock": first}])
        assert logs == [log for receipt in receipts for log in receipt["logs"]]

    def test_missing_tags_and_methods_are_errors(self):
        recipe = replace(BASE.recipe, count=3)
        node = ImitatedNode(recipe, Manner(has_finalized=False, has_block_receipts=False, has_logs=False))
        with pytest.raises(RpcError) as caught:
            node.call("eth_getBlockByNumber", ["finalized", False])
        assert caught.value.code == -39001
        for method in ("eth_getBlockReceipts", "eth_getLogs"):
            with pytest.raises(RpcError, match="does not exist"):
                node.call(method, [hex(recipe.first)])

    def test_a_node_is_served_over_http_one_by_one_and_in_batches(self):
        with imitating(replace(ARBITRUM.recipe, count=4)) as server:
            first = hex(ARBITRUM.recipe.first)
            calls = [("eth_chainId", []), ("eth_getLogs", [{"fromBlock": first, "toBlock": first}]), ("nothing", [])]
            body = [
                {"jsonrpc": "2.0", "id": index, "method": method, "params": params}
                for index, (method, params) in enumerate(calls)
            ]
            chain_id, logs, nothing = _post(server.url, body)
            assert chain_id["result"] == _post(server.url, body[0])["result"] == "0xa4b1"
            assert logs["result"] == server.chain.blocks[ARBITRUM.recipe.first].logs()
            assert nothing["error"]["code"] == -32601


def test_the_blocks_of_one_chain_end_at_its_finalized_block(nodes):
    node = nodes["polygon"]
    assert quantity(node.call("eth_getBlockByNumber", ["finalized", False])["number"]) == POLYGON.recipe.end - 3
    assert node.call("eth_getBlockByNumber", [hex(POLYGON.recipe.first - 1), False]) is None


def _types(node):
    return Counter(kind_of(each) for block in node.blocks.values() for each in block.block["transactions"])


def _post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
