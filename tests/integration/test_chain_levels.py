"""The level that each imitated chain reaches with a default job, and that its rows are what its node shows.

The table of the results is printed at the end (``-s`` shows it); docs/chains.md holds a copy.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import pytest

from tests.conftest import cloned_database, fresh_bucket
from tests.support.anvil import find_anvil
from tests.support.anvil_optimism import CHAIN_ID, running_optimism
from tests.support.chain_levels import (
    ANVIL,
    EXPECTED,
    imitated_chain,
    levels_of,
    markdown,
    reached,
    served_chain,
)
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import ImitatedNode
from tests.support.left_out import EVM_NODE, leave_out
from tests.support.nodes import environment, running
from tests.support.replay import serving_chain
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.cli.verification import verify_job
from trace_dagster.config.settings import settings_from

pytestmark = pytest.mark.integration


FAR = ("base", "base_reth", "arbitrum", "polygon", "avalanche", "gnosis_erigon", "ethereum_byzantium", "monad")
"""Chains that are synced through the gateway as well."""


@pytest.fixture(scope="module")
def nodes():
    return {key: ImitatedNode(imitated.recipe, imitated.manner) for key, imitated in IMITATED.items()}


@contextmanager
def runtime_of(nodes, keys, postgres, template, s3_server, mode):
    """Run a runtime with a pool per chain."""
    with ExitStack() as stack:
        pools = {key: stack.enter_context(serving_chain(nodes[key])).url for key in keys}
        url = stack.enter_context(cloned_database(*postgres, template))
        access = stack.enter_context(fresh_bucket(s3_server))
        yield stack.enter_context(running(url, access, more={"TRACE_RPC_GATEWAY": mode}, **pools))


@pytest.fixture(scope="module")
def near(nodes, postgres, template_database, s3_server):
    with runtime_of(nodes, IMITATED, postgres, template_database, s3_server, "never") as runtime:
        yield runtime


@pytest.fixture(scope="module")
def native(nodes, postgres, template_database, s3_server):
    with runtime_of(nodes, IMITATED, postgres, template_database, s3_server, "never") as runtime:
        yield runtime


@pytest.fixture(scope="module")
def far(nodes, postgres, template_database, s3_server):
    with runtime_of(nodes, FAR, postgres, template_database, s3_server, "always") as runtime:
        yield runtime


@pytest.fixture(scope="module")
def table():
    found = {}
    yield found
    print(f"\n{markdown(found)}")


def require_reached(runtime, table, subject, **options):
    """Check that all ranges commit the node's rows at the expected level, and that the endpoint is not on record."""
    key = subject.key
    found = reached(runtime, subject, **options)
    table[key] = levels_of(found)
    assert {name: each.errors for name, each in found.items() if each.errors} == {}
    assert {name: each.wrong for name, each in found.items() if each.wrong} == {}
    assert table[key] == EXPECTED[key]
    assert all(lowered["reason"] for each in found.values() for lowered in each.lowered)
    assert [each for each in runtime.endpoint_scores.all() if each.endpoint.startswith(f"{key}#")] == []


@pytest.mark.parametrize("key", IMITATED)
def test_a_default_job_reaches_the_level_of_its_chain(near, nodes, table, key):
    require_reached(near, table, imitated_chain(key, nodes[key]))


@pytest.mark.parametrize("key", IMITATED)
def test_it_does_so_with_rows_from_evidence(native, nodes, key):
    require_reached(native, {}, imitated_chain(key, nodes[key]), engine="native")


@pytest.mark.parametrize("key", FAR)
def test_it_does_so_through_the_gateway(far, nodes, key):
    require_reached(far, {}, imitated_chain(key, nodes[key]))


def test_an_op_stack_node_that_nobody_here_wrote_reaches_it_too(postgres_url, s3, table):
    if find_anvil() is None:
        leave_out(EVM_NODE)
    with running_optimism() as chain, running(postgres_url, s3, anvil=chain.url) as runtime:
        require_reached(runtime, table, served_chain(ANVIL, CHAIN_ID, chain.finalized + 1, chain.rpc))


@pytest.mark.parametrize("key", ["unlisted_type", "unlisted_header"])
def test_lowered_ranges_are_verified_again_for_what_they_claim(nodes, postgres_url, s3, key):
    """`verify` finds nothing wrong, with and without nodes; a form that all nodes show is left open again."""
    subject = imitated_chain(key, nodes[key])
    with serving_chain(nodes[key]) as node:
        with running(postgres_url, s3, **{key: node.url}) as runtime:
            found = reached(runtime, subject)
        settings = settings_from(environment(postgres_url, s3, **{key: node.url}))
        for deep in (False, True):
            report = verify_job(
                key, settings, None, deep=deep, repair=False, progress=lambda total: lambda: None
            ).report
            assert report.passed, report
            assert sum(report.lowered_blocks.values()) == sum(
                lowered["blocks"] for each in found.values() for lowered in each.lowered
            )
            assert report.lowered_reasons


def test_a_range_that_claims_to_be_full_is_not_excused_by_an_unknown_form(nodes, postgres_url, s3):
    """A node that shows another form now cannot have `verify` pass ranges that were proven when it showed none."""
    with serving_chain(nodes["unlisted"]) as node, running(postgres_url, s3, unlisted=node.url) as runtime:
        reached(runtime, imitated_chain("unlisted", nodes["unlisted"]))
        with chaos_rpc(node.url, faults=["add_header_member_and_gas"], rate=1.0, seed=1) as changed:
            settings = settings_from(environment(postgres_url, s3, unlisted=changed.url))
            report = verify_job(
                "unlisted", settings, None, deep=True, repair=False, progress=lambda total: lambda: None
            ).report
    assert not report.passed
    assert report.findings == []
    assert all("no node could settle it" in each for each in report.unchecked)
