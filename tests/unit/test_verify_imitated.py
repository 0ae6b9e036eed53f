"""The proof of each imitated chain's blocks: honest answers prove, and altered ones prove nothing else."""

import copy
import json
import os
from random import Random

import msgspec
import pytest

from tests.support.imitated.chains import IMITATED
from tests.support.imitated.hexadecimal import octets
from tests.support.imitated.node import ImitatedNode
from tests.support.recorded_blocks import RpcError
from trace_dagster.chaos_rpc.shapes import at, leaves, objects, replaced
from trace_dagster.datasets.chain import CLAIMED_COLUMNS
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import TraceError, UnknownForm
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts

PROVABLE = [
    key
    for key in IMITATED
    if key not in {"polygon_without_raw", "ethereum_made_up", "unlisted_type", "unlisted_header", "zksync"}
]
ROUNDS = 15 * int(os.environ.get("TRACE_VERIFY_EXAMPLES", "5"))
ODD = ("0x", "0x0", "0x1", "0x00", "0x" + "ff" * 32, "0x" + "ff" * 40, "", "x", None, [], {}, 0, -1, 2**70, True, 1.5)
CLAIMED_OF_HEADERS = {"size", "total_difficulty"}
FIELDS = {
    "from_address": "sender",
    "to_address": "to",
    "transaction_type": "kind",
    "transaction_hash": "hash",
}
"""Fields of a transaction that a column of another name holds."""


@pytest.fixture(scope="module")
def nodes():
    return {key: ImitatedNode(IMITATED[key].recipe, IMITATED[key].manner) for key in IMITATED}


def answers(node, number):
    """Return a block, its receipts and the raw bytes of its transactions, as the node shows them."""
    block = node.call("eth_getBlockByNumber", [hex(number), True])
    receipts = node.call("eth_getBlockReceipts", [hex(number)]) or []
    try:
        raw = [
            node.call("eth_getRawTransactionByBlockNumberAndIndex", [hex(number), hex(index)])
            for index in range(len(receipts))
        ]
    except RpcError:
        raw = []
    return block, receipts, {index: octets(each) for index, each in enumerate(raw) if each}


def proven(chain, number, block, receipts, raw):
    """Return what the answers prove, without what no commitment covers."""
    decoded = decode_block(json.dumps(block).encode(), full=True)
    header = prove.prove_header(decoded, number, chain)
    wanted = {index: raw[index] for index in prove.raw_needed(decoded, header, chain) if index in raw}
    transactions = prove.prove_transactions(decoded, header, chain, deep=True, raw_bytes=wanted)
    found = prove.receipts_of(decode_receipts(json.dumps(receipts).encode()), header, chain, transactions=transactions)
    outside = [each.form == "outside_root" for each in found]
    return (
        {name: value for name, value in msgspec.structs.asdict(header).items() if name not in claimed_of(chain)},
        [_covered(each) for each in transactions if (each.form, each.kind) != ("polygon_state_sync", 0)],
        [
            (each.kind, each.succeeded, each.gas_used, each.logs)
            for each, is_open in zip(found, outside, strict=True)
            if not is_open
        ],
    )


def claimed_of(chain):
    return CLAIMED_OF_HEADERS | ({"extra_data"} if chain.header == "scroll" else set())


def _covered(transaction):
    open_fields = {FIELDS.get(name, name) for name in CLAIMED_COLUMNS.get(transaction.form, ())}
    if transaction.form is None:
        open_fields = set()
    return {name: value for name, value in msgspec.structs.asdict(transaction).items() if name not in open_fields}


@pytest.mark.parametrize("key", PROVABLE)
def test_an_honest_nodes_blocks_prove(nodes, key):
    chain = chain_of(nodes[key].recipe.chain_id)
    for number in nodes[key].blocks:
        header, transactions, receipts = proven(chain, number, *answers(nodes[key], number))
        held = nodes[key].blocks[number]
        assert header["hash"] == octets(held.block["hash"])
        hashes = [octets(each["hash"]) for each in held.block["transactions"][: len(held.raw)]]
        assert [each["hash"] for each in transactions] == hashes
        assert len(receipts) == len(held.raw)


@pytest.mark.parametrize(
    ("key", "part", "kind"),
    [
        ("polygon_without_raw", "transactions", 0x7F),
        ("ethereum_made_up", "receipts", None),
        ("unlisted_type", "transactions", 0x55),
        ("unlisted_header", "header", None),
        ("zksync", "header", None),
    ],
)
def test_what_cannot_be_proven_is_a_form_that_is_not_known(nodes, key, part, kind):
    chain = chain_of(nodes[key].recipe.chain_id)
    found = set()
    for number in nodes[key].blocks:
        try:
            proven(chain, number, *answers(nodes[key], number))
        except UnknownForm as unknown:
            found.add((unknown.part, unknown.kind))
    assert found == {(part, kind)}


@pytest.mark.parametrize("key", PROVABLE)
def test_an_altered_answer_proves_the_same_or_nothing(nodes, key):
    """Any error is one of this package's own, because answers are hostile input."""
    node, rng = nodes[key], Random(key)
    chain = chain_of(node.recipe.chain_id)
    numbers = [number for number, block in node.blocks.items() if block.receipts]
    refused = 0
    for _ in range(ROUNDS):
        number = rng.choice(numbers)
        honest = answers(node, number)
        altered = _altered(rng, copy.deepcopy(honest))
        try:
            found = proven(chain, number, *altered)
        except TraceError:
            refused += 1
            continue
        assert found == proven(chain, number, *honest), (number, _differences(honest, altered))
    assert refused > ROUNDS // 4


def _altered(rng, honest):
    """Return the answers with one change: a value, a member or a row is another, missing, doubled or moved."""
    block, receipts, raw = honest
    changed = rng.randrange(3)
    if changed == 0:
        return _change(rng, block), receipts, raw
    if changed == 1:
        return {**block, "transactions": _change(rng, block["transactions"])}, receipts, raw
    return block, _change(rng, receipts), raw


def _change(rng, answer):
    kind = rng.randrange(5)
    if kind == 0 and isinstance(answer, list) and len(answer) > 1:
        first, second = rng.sample(range(len(answer)), 2)
        answer[first], answer[second] = answer[second], answer[first]
        return answer
    if kind == 1 and isinstance(answer, list):
        index = rng.randrange(len(answer))
        return [*answer[:index], *([answer[index]] * rng.choice((0, 2))), *answer[index + 1 :]]
    if kind == 2:
        path = rng.choice([path for path in objects(answer) if at(answer, path)])
        gone = rng.choice(list(at(answer, path)))
        return replaced(answer, path, {name: value for name, value in at(answer, path).items() if name != gone})
    path, leaf = rng.choice(list(leaves(answer)))
    return replaced(answer, path, _other(rng, leaf))


def _other(rng, leaf):
    if not isinstance(leaf, str) or not leaf.startswith("0x") or len(leaf) < 3 or rng.random() < 0.3:
        return rng.choice(ODD)
    place = rng.randrange(2, len(leaf))
    return leaf[:place] + rng.choice("0123456789abcdef") + leaf[place + 1 :]


def _differences(honest, altered):
    before, after = (dict(leaves([each[0], each[1]])) for each in (honest, altered))
    return {path: (before.get(path), after.get(path)) for path in before | after if before.get(path) != after.get(path)}
