"""A chain whose fees do not fit into 64 bits: Cryo cannot read its blocks, and every fee is committed."""

import pyarrow as pa
import pytest

from tests.support.chain_levels import FOUR, FULL, Subject, levels_of, reached
from tests.support.imitated.chain import Recipe
from tests.support.imitated.node import ImitatedNode
from tests.support.nodes import running
from tests.support.replay import serving_chain

pytestmark = pytest.mark.integration

BASE_FEE = 3 << 70
FEE = pa.decimal128(38, 0)
MEMBERS = {
    "gas_price": "gasPrice",
    "max_fee_per_gas": "maxFeePerGas",
    "max_priority_fee_per_gas": "maxPriorityFeePerGas",
}


@pytest.fixture(scope="module")
def node():
    return ImitatedNode(Recipe("Dear chain", 987_700, base_fee=BASE_FEE))


def fees(node, name, span):
    """Return the fees that the node shows, and nothing of datasets without fees but the number of rows."""
    held = [node.blocks[number] for number in range(span.start, span.end)]
    transactions = [each for block in held for each in block.block["transactions"]]
    if name == "blocks":
        return pa.table({"base_fee_per_gas": decimals(block.block["baseFeePerGas"] for block in held)})
    if name == "transactions":
        return pa.table({column: decimals(map(get(member), transactions)) for column, member in MEMBERS.items()})
    rows = [log for block in held for log in block.logs()] if name == "logs" else [
        frame for block in held for root in block.frames for frame in all_frames(root)
    ]  # fmt: skip
    return pa.table({"none": pa.nulls(len(rows))})


def get(member):
    return lambda transaction: transaction.get(member)


def decimals(texts):
    return pa.array([None if text is None else int(text, 16) for text in texts], FEE)


def all_frames(frame):
    yield frame
    for each in frame.get("calls", []):
        yield from all_frames(each)


@pytest.mark.parametrize("engine", ["cryo", "native"])
def test_every_fee_is_committed(node, postgres_url, s3, engine):
    recipe = node.recipe
    chain = Subject(
        "dear", recipe.chain_id, recipe.first, recipe.end, recipe.count // 2, lambda name, span: fees(node, name, span)
    )
    with serving_chain(node) as served, running(postgres_url, s3, dear=served.url) as runtime:
        found = reached(runtime, chain, engine=engine)
        scores = runtime.endpoint_scores.all()
    assert {name: each.errors for name, each in found.items()} == {name: [] for name in FOUR}
    assert {name: each.wrong for name, each in found.items()} == {name: [] for name in FOUR}
    assert levels_of(found) == FULL
    assert scores == []
