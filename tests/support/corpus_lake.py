"""The devchain's blocks of the SQL corpora, committed range by range: a lake that a query service can serve."""

from __future__ import annotations

from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply
from tests.support.sql_corpora import CHAIN_ID, DATASETS, lake_tables
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore

_CHUNK = 40
_JOB = """
kind: chain_sync
name: corpora
chain_id: {chain_id}
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: none, chunk_size: {chunk}}}
streams:
  blocks: {{cryo_dataset_name: blocks}}
  transactions: {{cryo_dataset_name: transactions, columns: [{columns}]}}
  logs: {{cryo_dataset_name: logs}}
  geth_calls: {{cryo_dataset_name: geth_calls}}
"""


def commit_lake(database: Database, store: ObjectStore, blocks: int = 120) -> None:
    """Apply a job over the first blocks and commit their rows."""
    tables = lake_tables(blocks)
    columns = ", ".join(tables["transactions"].column_names)
    streams = apply(database, _JOB.format(chain_id=CHAIN_ID, blocks=blocks, chunk=_CHUNK, columns=columns))
    for name in DATASETS:
        stream = streams[name]
        for block_range in BlockRange(0, blocks).split(_CHUNK):
            rows = tables[name].select(stream.dataset.schema(stream.columns).names)
            numbers = rows["block_number"].to_pylist()
            kept = [place for place, number in enumerate(numbers) if number in block_range]
            commit_rows(database, store, stream, block_range, FULL, rows.take(kept))
