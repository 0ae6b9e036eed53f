"""Evidence from nodes that leave out what a chain's forms need, show it in their own way, or invent it."""

from __future__ import annotations

import pytest

from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import ImitatedNode
from tests.support.replay import serving_chain
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import Unavailable, UnknownForm, VerificationFailed
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration


class Altered(ImitatedNode):
    """A node whose answers to one method are changed."""

    def __init__(self, key, method, change):
        super().__init__(IMITATED[key].recipe, IMITATED[key].manner)
        self._altered = method
        self._change = change

    def call(self, method, params):
        answer = super().call(method, params)
        return self._change(answer) if method == self._altered else answer


def gathered(node, name, *, for_rows=False):
    with serving_chain(node) as served:
        (endpoint,) = RpcPool("altered", (served.url,)).endpoints
        piece = BlockRange(node.recipe.first, node.recipe.end)
        return EvidenceCollector(name, node.recipe.chain_id, None, for_rows=for_rows).of(piece).gather(endpoint)


def is_derived(each):
    return each["from"] == "0x" + "00" * 20 and each["type"] == "0x0"


def without_receipt(answer):
    return [each for each in answer if not is_derived(each)]


def without_transaction(answer):
    return {**answer, "transactions": [each for each in answer["transactions"] if not is_derived(each)]}


@pytest.mark.parametrize(
    ("method", "change"),
    [("eth_getBlockReceipts", without_receipt), ("eth_getBlockByNumber", without_transaction)],
)
@pytest.mark.parametrize(
    ("name", "for_rows"), [("transactions", False), ("transactions", True), ("logs", True), ("geth_calls", False)]
)
def test_a_state_sync_transaction_without_its_receipt_is_no_lie_and_no_crash(method, change, name, for_rows):
    assert gathered(Altered("polygon", method, lambda answer: answer), name, for_rows=for_rows).headers
    with pytest.raises(Unavailable, match="does not show both a state-sync transaction and its receipt"):
        gathered(Altered("polygon", method, change), name, for_rows=for_rows)


@pytest.mark.parametrize("absent", [None, "0x"])
def test_a_node_without_the_bytes_of_a_state_sync_transaction_does_not_lie(absent):
    node = Altered("polygon", "eth_getRawTransactionByBlockNumberAndIndex", lambda answer: absent)
    with pytest.raises(UnknownForm, match="the bytes of a state-sync transaction are not known"):
        gathered(node, "transactions")
    assert gathered(node, "logs").receipts


def with_invented(answer):
    """Return the block with a state-sync transaction in place of its first, if it has none."""
    if any(each["type"] == "0x7f" for each in answer["transactions"]) or not answer["transactions"]:
        return answer
    first, *others = answer["transactions"]
    invented = {**first, "type": "0x7f", "hash": "0x" + "77" * 32, "value": "0x0", "input": "0x"}
    return {**answer, "transactions": [invented, *others]}


@pytest.mark.parametrize("name", ["transactions", "geth_calls"])
def test_an_invented_state_sync_transaction_opens_no_block(name):
    """A node that gives no raw bytes could else have any block of Polygon committed unproven."""
    node = Altered("polygon_without_raw", "eth_getBlockByNumber", with_invented)
    with pytest.raises(VerificationFailed, match="a type that no receipt of its block has"):
        gathered(node, name)


def without_base_fee(answer):
    return [{name: value for name, value in each.items() if name != "baseFee"} for each in answer]


@pytest.mark.parametrize("name", ["logs", "transactions", "erc20_transfers", "geth_calls"])
def test_a_node_of_celo_that_leaves_out_the_base_fee_of_receipts_does_not_lie(name):
    with pytest.raises(UnknownForm, match="leaves out base_fee") as caught:
        gathered(Altered("celo", "eth_getBlockReceipts", without_base_fee), name)
    assert (caught.value.part, caught.value.kind) == ("receipts", 0x7B)


def with_invented_receipt(answer):
    """Return the receipts with a type that opens them in place of the first one's."""
    return [{**answer[0], "type": "0x7a"}, *answer[1:]] if answer else answer


@pytest.mark.parametrize("name", ["logs", "transactions", "erc20_transfers", "geth_calls"])
def test_an_invented_receipt_without_its_fee_opens_no_block(name):
    with pytest.raises(VerificationFailed, match=r"type that no transaction of its block|its transaction's type"):
        gathered(Altered("celo", "eth_getBlockReceipts", with_invented_receipt), name)
