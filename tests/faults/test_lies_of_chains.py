"""Nodes of other chains that answer incorrectly, and nodes that pretend to be of a form that nobody knows.

On a chain of the table nothing false is committed, and no level is lowered. On a chain that is in no table an unknown
form lowers a level, but never beside a node that shows the known one.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.chain_levels import FOUR, truth
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import ImitatedNode
from tests.support.lies import Cell, Lab, summary
from tests.support.replay import serving_chain
from trace_dagster.blocks import BlockRange
from trace_dagster.chaos_rpc.faults import FAULTS
from trace_dagster.engine.embedded import EmbeddedCryo

FULL = bool(os.environ.get("TRACE_FAULTS_FULL"))
AT_ONCE = 8
BLOCKS = 12 if FULL else 3
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600 if FULL else 120)]

LISTED = ("base", "arbitrum", "polygon", "avalanche") if FULL else ("base", "arbitrum")
UNLISTED = "unlisted"
FORMS = (
    "invent_transaction_type",
    "invent_receipt_type",
    "invent_type",
    "invent_type_and_value",
    "drop_type",
    "add_header_member",
    "add_header_member_and_gas",
)
OTHERS = ("truncate_tail", "reorder_rows", "neighbour_rows_relabelled", "stale_fork", "flip_byte", "flip_digit")
UNPROVABLE = "add_header_member_and_gas"
"""The lie that looks like a form that nobody knows. The others contradict a hash, or change nothing that is hashed."""
TOLD = [fault.name for fault in FAULTS.values() if fault.kind == "answer"] if FULL else [*FORMS, *OTHERS]


@pytest.fixture(scope="module")
def labs():
    """Serve a node per chain; engines are shared."""
    engine = EmbeddedCryo()
    with ExitStack() as stack:
        stack.callback(engine.close)
        yield {key: _lab(stack, engine, key) for key in (*LISTED, UNLISTED)}


def _lab(stack, engine, key):
    node = ImitatedNode(IMITATED[key].recipe)
    url = stack.enter_context(serving_chain(node)).url
    whole = BlockRange(node.recipe.first, node.recipe.end)
    return Lab(
        url, lambda _: engine, engine, chain_id=node.recipe.chain_id, truth=lambda name: truth(name, node, whole)
    )


@pytest.fixture(scope="module")
def outcomes():
    """Collect the outcomes; their table is printed at the end."""
    found = []
    yield found
    if FULL:
        print(f"\n{summary(found)}")


def told(labs, outcomes, key, fault, places, rate=1.0):
    """Return the outcome of each dataset."""
    start = IMITATED[key].recipe.first + 2
    cells = [Cell(fault, name, rate, blocks=BLOCKS, start=start) for name in FOUR]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(lambda cell: labs[key].run(cell, places), cells))
    outcomes += found
    return found


@pytest.mark.parametrize("key", LISTED)
@pytest.mark.parametrize("fault", TOLD)
def test_on_a_listed_chain_nothing_false_is_committed_and_nothing_lowered(labs, outcomes, key, fault):
    for rate in (1.0, 0.1) if FULL else (1.0,):
        found = told(labs, outcomes, key, fault, "L", rate)
        assert [(each.cell, each.false) for each in found if each.false or each.lowered] == []


@pytest.mark.parametrize("key", LISTED)
@pytest.mark.parametrize("fault", TOLD if FULL else FORMS)
def test_beside_an_honest_node_of_a_listed_chain_a_liar_costs_nothing(labs, outcomes, key, fault):
    found = told(labs, outcomes, key, fault, "LH")
    assert [(each.cell, each.refused, each.false) for each in found if each.refused or each.false] == []
    assert not any(each.lowered for each in found)
    assert {name for each in found for name in each.lies} <= {"pool#1"}


@pytest.mark.parametrize("fault", TOLD)
def test_on_an_unlisted_chain_nothing_that_is_listed_as_proven_is_false(labs, outcomes, fault):
    found = told(labs, outcomes, UNLISTED, fault, "L")
    assert [(each.cell, each.false) for each in found if each.false] == []
    if fault != UNPROVABLE:
        assert not any(each.lowered for each in found)


@pytest.mark.parametrize("fault", FORMS)
@pytest.mark.parametrize("places", ["LH", "HL"])
def test_beside_an_honest_node_of_an_unlisted_chain_no_level_is_lowered(labs, outcomes, fault, places):
    found = told(labs, outcomes, UNLISTED, fault, places)
    assert [(each.cell, each.refused, each.false) for each in found if each.refused or each.false] == []
    assert not any(each.lowered for each in found)


def test_a_lone_node_of_an_unlisted_chain_lowers_every_level_by_its_header(labs, outcomes):
    """Check that the tests above would notice a lowered level."""
    found = told(labs, outcomes, UNLISTED, UNPROVABLE, "L")
    assert [(each.refused, each.lowered) for each in found] == [(None, BLOCKS)] * 4


@pytest.mark.parametrize("key", [*LISTED, UNLISTED])
def test_a_header_member_outside_the_hash_costs_nothing(labs, outcomes, key):
    found = told(labs, outcomes, key, "add_header_member", "L")
    assert [(each.refused, each.false, each.lowered, each.unproven) for each in found] == [(None, None, 0, False)] * 4


@pytest.mark.parametrize("key", [*LISTED, UNLISTED])
def test_an_honest_node_is_believed(labs, outcomes, key):
    found = told(labs, outcomes, key, "flip_byte", "H")
    assert [(each.refused, each.false, each.lowered, each.unproven) for each in found] == [(None, None, 0, False)] * 4
