"""Hot rows of imitated chains: at the level that their forms allow, and left out where nothing proves them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.support.chain_levels import imitated_chain, wrong_columns
from tests.support.following import follow_job, follower_process, hot_blocks, hot_rows, reason
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.node import ImitatedNode
from tests.support.replay import serving_chain
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.hot import HOT_DATASETS

pytestmark = pytest.mark.integration
CHUNK = 39_989
"""No fork of an imitated chain begins at a multiple of it."""

PROVEN = ("arbitrum", "base", "celo", "ethereum_frontier", "polygon", "scroll")
"""Chains with forms of their own, all of them proven."""

LEFT_OUT = {
    "polygon_without_raw": {"transactions"},
    "ethereum_made_up": {"transactions", "logs"},
    "unlisted_type": {"transactions"},
    "unlisted_header": set(HOT_DATASETS),
    "zksync": set(HOT_DATASETS),
}
"""Datasets that are left out in some or all blocks, because what the rows are built from is not proven."""


@pytest.mark.parametrize("key", [*PROVEN, *LEFT_OUT])
def test_hot_rows_are_what_the_node_shows(postgres_url, database, key):
    node = ImitatedNode(IMITATED[key].recipe, IMITATED[key].manner)
    subject = imitated_chain(key, node)
    with serving_chain(node) as served, follower_process(postgres_url, **{key: served.url}) as runtime:
        streams = follow_job(
            database,
            chain_id=subject.chain_id,
            from_block=min(node.blocks),
            chunk=CHUNK,
            pool=key,
            hot_max_blocks=1_000_000,
        )
        runtime.followers.tick(10)
        every = [block for block in sorted(node.blocks) if block >= (node.finalized + 1) // CHUNK * CHUNK]
        left_out = {name for name, each in streams.items() if hot_blocks(database, each.dataset_uuid) != every}
        assert left_out == LEFT_OUT.get(key, set()), reason(database)
        with database.connection() as connection:
            levels = {row["level"] for row in connection.execute("select level from hot.chain").fetchall()}
        assert levels == {
            "structural" if left_out == set(HOT_DATASETS) else "full"
        }  # the lowest of rows, or of a header
        for name, stream in streams.items():
            blocks = hot_blocks(database, stream.dataset_uuid)
            rows = hot_rows(database, stream)
            shown = [subject.truth(name, BlockRange(block, block + 1)) for block in blocks]
            if blocks:
                table = pa.Table.from_pylist(rows, stream.dataset.schema(stream.columns))
                assert wrong_columns(table, pa.concat_tables(shown)) == []
            if name in left_out:
                assert f"{name}: " in (reason(database) or "")
