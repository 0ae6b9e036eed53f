"""Honest endpoints that leave something out: they are no liars, and another endpoint that shows it is preferred."""

from __future__ import annotations

import pytest

from tests.support.chain_levels import FULL, imitated_chain, levels_of, reached
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import ImitatedNode
from tests.support.nodes import running
from tests.support.replay import serving_chain
from trace_dagster.datasets.chain import Form

pytestmark = pytest.mark.integration


class WithoutReceiptTypes(ImitatedNode):
    """A node that leaves out the type of receipts."""

    def call(self, method, params):
        answer = super().call(method, params)
        if method == "eth_getBlockReceipts" and answer:
            return [{name: value for name, value in each.items() if name != "type"} for each in answer]
        return answer


@pytest.mark.parametrize("key", ["bsc", "base"])
def test_receipts_without_types_are_proven(postgres_url, s3, key):
    node = WithoutReceiptTypes(IMITATED[key].recipe)
    with serving_chain(node) as served, running(postgres_url, s3, **{key: served.url}) as runtime:
        found = reached(runtime, imitated_chain(key, node))
        assert [each for each in found.values() if each.errors or each.wrong] == []
        assert levels_of(found) == FULL
        assert runtime.endpoint_scores.all() == []


def test_a_form_that_was_learned_does_not_keep_a_better_endpoint_from_being_asked(postgres_url, s3):
    key = "ethereum_made_up"
    poorer, better = ImitatedNode(IMITATED[key].recipe, IMITATED[key].manner), ImitatedNode(IMITATED[key].recipe)
    with (
        serving_chain(poorer) as one,
        serving_chain(better) as two,
        running(postgres_url, s3, **{key: f"{one.url},{two.url}"}) as runtime,
    ):
        runtime.evidence_cache.learned.add(1, Form("receipts"), 0)
        found = reached(runtime, imitated_chain(key, better))
        assert [each for each in found.values() if each.errors or each.wrong] == []
        assert levels_of(found) == FULL
        assert runtime.endpoint_scores.all() == []
