"""A number that no stored column can hold is an error that names column and block, at levels without a proof too."""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest

from tests.support.imitated.layer1 import Modern
from tests.support.imitated.node import ImitatedNode
from tests.support.replay import serving_chain
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.errors import VerificationFailed
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration
RECIPE = Modern("Monad", 143, first=90_000_000)
SPAN = BlockRange(RECIPE.first, RECIPE.first + 6)


class LargeGas(ImitatedNode):
    """A node that claims a gas limit of over 63 bits for each transaction."""

    def call(self, method, params):
        answer = super().call(method, params)
        if method == "eth_getBlockByNumber" and params[1]:
            answer = {**answer, "transactions": [{**each, "gas": hex(1 << 63)} for each in answer["transactions"]]}
        return answer


@pytest.mark.parametrize(("verify", "quorum"), [("off", 1), ("structural", 1), ("structural", 2)])
def test_a_number_of_over_63_bits_names_column_and_block(verify, quorum):
    known = dataset("transactions")
    with ExitStack() as stack:
        urls = tuple(stack.enter_context(serving_chain(LargeGas(RECIPE))).url for _ in range(quorum))
        pool = RpcPool("node", urls, quorum)
        request = RangeRequest(
            known, SPAN, RECIPE.chain_id, known.stored_columns(), verify, pool, None, {"timeout_seconds": 30}
        )
        engine = stack.enter_context(closing(EmbeddedCryo()))
        extractor = stack.enter_context(
            closing(Extractor(engine, lambda pool, load: list(pool.endpoints), lambda *_: None))
        )
        with pytest.raises(
            VerificationFailed, match="claims a gas_limit that is negative or has more than 63 bits"
        ) as error:
            list(extractor.start(request))
    assert (error.value.facts["block"], error.value.facts["got"]) == (SPAN.start, str(1 << 63))
