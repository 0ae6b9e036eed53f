"""The example of docs/changes.md: a downstream table that follows the change log equals the lake after each step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.hot_chain import MadeUpChain, apply_followed, commit_cold, followed, hashes_of
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.changes import ChangeLog
from trace_dagster.registry.hot import HotStore

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "changes.md"
A = MadeUpChain("a")


def changed_blocks():
    """Return the function of the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict = {}
    exec(code, found)  # the page's own text
    return found["changed_blocks"]


def visible(database, dataset):
    """Return what is visible of a dataset: the hash of each hot block, and the version of each committed block."""
    with database.connection() as connection:
        hot = connection.execute(
            "select block_number as n, block_hash as h from hot.blocks where dataset_uuid = %s", [dataset]
        ).fetchall()
        cold = connection.execute(
            "select generate_series(lower(block_range), upper(block_range) - 1) as n, dataset_version as v"
            " from trace.dataset_versions where visible and dataset_uuid = %s",
            [dataset],
        ).fetchall()
    return {row["n"]: row["h"] for row in hot} | {row["n"]: row["v"] for row in cold}


def test_a_downstream_table_learns_which_blocks_to_compute_again(database):
    streams = apply_followed(database)
    store, lease, log = HotStore(database), followed(database), ChangeLog(database)
    blocks, find = streams["blocks"], changed_blocks()
    fork = A.fork(14, "b")
    steps = [
        (lambda: store.store(lease, hashes_of(streams), A.blocks(8, 16, streams)), [BlockRange(8, 16)]),
        (lambda: store.store(lease, hashes_of(streams), A.blocks(16, 17, streams)), [BlockRange(16, 17)]),
        (lambda: commit_cold(database, streams["logs"], BlockRange(0, 10), A), []),  # another dataset
        (lambda: commit_cold(database, blocks, BlockRange(0, 10), A), [BlockRange(0, 10)]),
        (
            lambda: store.replace(lease, hashes_of(streams), 14, fork.blocks(14, 19, streams)),
            [BlockRange(14, 19)],
        ),
        (lambda: commit_cold(database, blocks, BlockRange(10, 20), fork), [BlockRange(10, 20)]),
        (
            lambda: store.replace(
                lease, hashes_of(streams), 13, A.fork(13, "c").blocks(13, 15, streams), parent_hash=A.hash(12)
            ),
            [BlockRange(10, 20)],
        ),
        (lambda: store.drop(lease, blocks.dataset_uuid, "not followed any more"), [BlockRange(13, 15)]),
    ]
    cursor, downstream = log.now(), {}
    for act, expected in steps:
        act()
        changed, cursor = find(log, cursor, "blocks")
        assert changed == expected
        now = visible(database, blocks.dataset_uuid)
        numbers = {n for each in changed for n in range(each.start, each.end)}
        downstream = {n: found for n, found in downstream.items() if n not in numbers}
        downstream |= {n: found for n, found in now.items() if n in numbers}
        assert downstream == now
