"""Rows from evidence of a node that makes up whole blocks: their hashes and roots agree, their contents do not."""

from __future__ import annotations

import pytest

from tests.support.imitated.chains import IMITATED
from tests.support.imitated.encoding import list_root
from tests.support.imitated.headers import with_hash
from tests.support.imitated.hexadecimal import shown
from tests.support.imitated.node import ImitatedNode
from tests.support.imitated.receipts import logs_bloom, receipt_leaf
from tests.support.replay import serving_chain
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import VerificationFailed
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration


class Fabricating(ImitatedNode):
    """A node whose blocks commit to one more, or one less receipt than transactions."""

    def __init__(self, more):
        super().__init__(IMITATED["monad"].recipe, IMITATED["monad"].manner)
        self._more = more

    def call(self, method, params):
        answer = super().call(method, params)
        if method == "eth_getBlockByNumber":
            receipts = self._receipts_of(params)
            root = shown(list_root([receipt_leaf(each, "ethereum") for each in receipts]))
            bloom = shown(logs_bloom(log for receipt in receipts for log in receipt["logs"]))
            return with_hash({**answer, "receiptsRoot": root, "logsBloom": bloom}, "ethereum")
        return self._receipts_of(params) if method == "eth_getBlockReceipts" else answer

    def _receipts_of(self, params):
        receipts = super().call("eth_getBlockReceipts", params[:1]) or []
        return [*receipts, receipts[-1]] if self._more else receipts[:-1]


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("name", ["transactions", "logs", "erc20_transfers", "geth_calls"])
def test_a_made_up_block_without_one_receipt_per_transaction_is_refused(name, more):
    node = Fabricating(more)
    number = next(each.number for each in node.blocks.values() if each.receipts and each.receipts[-1]["logs"])
    with serving_chain(node) as served:
        (endpoint,) = RpcPool("monad", (served.url,)).endpoints
        collector = EvidenceCollector(name, node.recipe.chain_id, None)
        with pytest.raises(VerificationFailed):
            collector.of(BlockRange(number, number + 1)).gather_for_rows(endpoint)
