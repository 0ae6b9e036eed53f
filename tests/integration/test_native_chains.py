"""Native rows of imitated chains: those that the node shows, at the level of the chain, as with Cryo."""

from __future__ import annotations

import pytest

from tests.integration.test_chain_levels import FAR, runtime_of
from tests.support.chain_levels import EXPECTED, imitated_chain, levels_of, reached
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import ImitatedNode

pytestmark = pytest.mark.integration

WITH_OPEN_FORMS = ("polygon_without_raw", "unlisted_type", "unlisted_header")
"""Chains with blocks that are left open: their rows come from Cryo, the others' from the evidence."""


@pytest.fixture(scope="module")
def nodes():
    return {key: ImitatedNode(IMITATED[key].recipe, IMITATED[key].manner) for key in (*FAR, *WITH_OPEN_FORMS)}


@pytest.fixture(scope="module")
def near(nodes, postgres, template_database, s3_server):
    with runtime_of(nodes, nodes, postgres, template_database, s3_server, "never") as runtime:
        yield runtime


@pytest.mark.parametrize("key", [*FAR, *WITH_OPEN_FORMS])
def test_a_native_job_reaches_the_level_of_its_chain(near, nodes, key):
    found = reached(near, imitated_chain(key, nodes[key]), engine="native")
    assert {name: each.errors for name, each in found.items() if each.errors} == {}
    assert {name: each.wrong for name, each in found.items() if each.wrong} == {}
    assert levels_of(found) == EXPECTED[key]
    assert [each for each in near.endpoint_scores.all() if each.endpoint.startswith(f"{key}#")] == []
