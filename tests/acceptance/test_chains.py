"""A default job of four datasets on imitated Base, Arbitrum One and Polygon, through the whole stack."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.conftest import APPLIED_CHAINS
from tests.acceptance.jobs import FOUR, job_file
from tests.support.chain_levels import EXPECTED
from tests.support.imitated.chains import IMITATED

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


RANGES = {"base": 1, "arbitrum": 1, "polygon": 2}
"""Ranges of each stream: Polygon's two lie before and after Madhugiri."""


def end_of(key):
    """Return the end of a chain's job, which is not above its finalized block."""
    recipe = IMITATED[key].recipe
    return min(recipe.first + RANGES[key] * (recipe.count // 2), recipe.end - 2)


def applied(stack, folder, key):
    """Apply the job of a chain, and wait until it is complete."""
    recipe, end = IMITATED[key].recipe, end_of(key)
    path = job_file(
        folder,
        key,
        chain=recipe.chain_id,
        start=recipe.first,
        end=end,
        pool=key,
        chunk=recipe.count // 2,
        suffix=f"_{key}",
    )
    return stack.cli("apply", "--file", str(path), "--wait")


def test_three_rollups_complete_at_their_levels_and_no_endpoint_is_on_record(stack, imitated, tmp_path):
    with ThreadPoolExecutor(len(APPLIED_CHAINS)) as threads:
        runs = threads.map(lambda key: applied(stack, tmp_path, key), APPLIED_CHAINS)
        done = dict(zip(APPLIED_CHAINS, runs, strict=True))
    assert {key: run.stderr for key, run in done.items() if run.returncode} == {}
    shown = stack.json("status", "--json")
    for job in shown["jobs"]:
        if job["name"] not in APPLIED_CHAINS:
            continue
        levels = {stream["dataset_key"].rpartition("_")[0]: stream["verified"] for stream in job["streams"]}
        expected = dict(zip(FOUR, EXPECTED[job["name"]], strict=True))
        assert levels == {name: {level: RANGES[job["name"]]} for name, level in expected.items()}
    assert [each for each in shown["endpoints"] if each["endpoint"].split("#")[0] in APPLIED_CHAINS] == []
    for key in APPLIED_CHAINS:
        node = imitated[key].chain
        held = [node.blocks[number] for number in range(node.recipe.first, end_of(key))]
        counts = {
            "blocks": len(held),
            "transactions": sum(len(block.receipts) for block in held),
            "logs": sum(len(block.logs()) for block in held),
        }
        chain = f"chain_{node.recipe.chain_id}"
        assert {name: stack.count(f"{chain}.{name}_{key}") for name in counts} == counts
