"""What Dagster's pages show of a stream: owner, table, columns, address; of a commit: size and cost first."""

from __future__ import annotations

from uuid import uuid4

import pytest
from dagster import DynamicPartitionsDefinition, MarkdownMetadataValue

from tests.support.registry import apply, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.defs.materializations import commit_metadata
from trace_dagster.defs.sensors import run_request
from trace_dagster.defs.streams import asset_key, stream_asset
from trace_dagster.defs.verification_check import verification_evaluation
from trace_dagster.planning.dispatcher import RunBatch
from trace_dagster.planning.run_groups import all_run_groups

pytestmark = pytest.mark.integration


@pytest.fixture
def streams(database):
    return apply(database, job_text())


def test_an_asset_shows_its_owner_table_columns_and_address(streams):
    blocks = streams["blocks"]
    made = stream_asset(blocks, DynamicPartitionsDefinition(name="p"), bucket="lake")
    spec = made.get_asset_spec(asset_key(99, "blocks"))
    assert spec.owners == ["team:job"]
    metadata = spec.metadata
    assert list(metadata)[:3] == ["dagster/table_name", "dagster/uri", "dagster/column_schema"]
    assert metadata["dagster/table_name"] == "chain_99.blocks"
    assert metadata["reachable_level"].startswith("full; chain 99 is not in the table of chains")
    assert metadata["dagster/uri"].value == f"s3://lake/cryo/99/{blocks.dataset_uuid}/"
    columns = {column.name: column for column in metadata["dagster/column_schema"].columns}
    assert tuple(columns) == blocks.columns
    assert columns["block_number"].type == "int64"
    assert not columns["block_number"].constraints.nullable


def test_a_commit_shows_size_and_cost_first_and_no_markdown(database, store, streams):
    with ingesting(database, store) as ingest:
        claimed = ingest.claim(streams["blocks"], BlockRange(0, 100), "run", wait_seconds=0)
        published = ingest.commit(ingest.start(claimed))
    metadata = commit_metadata(published)
    assert list(metadata)[:6] == ["rows", "bytes", "rpc_calls", "seconds", "blocks", "verification_level"]
    assert metadata["rpc_calls"] == 1 + 100  # eth_chainId, and one call per block
    assert metadata["dagster/partition_row_count"] == published.rows == 100
    assert metadata["dagster/uri"].value == published.storage_ref
    shown = verification_evaluation(asset_key(99, "blocks"), published)
    assert not [name for name, value in shown.metadata.items() if isinstance(value, MarkdownMetadataValue)]


def test_the_batch_id_does_not_lead_the_tags_of_a_run(streams):
    (group,) = all_run_groups(list(streams.values()))
    keys = (BlockRange(0, 100).key, BlockRange(100, 200).key)
    tags = run_request(RunBatch(uuid4(), group, keys, ("blocks",))).tags
    own = sorted([*(tag for tag in tags if tag.startswith("trace/")), "trace/job"])
    assert own == ["trace/blocks", "trace/job", "trace/run_batch"]
    assert tags["trace/blocks"] == "0-200"
