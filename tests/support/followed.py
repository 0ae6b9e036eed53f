"""One followed chain in a registry, whose committed and hot blocks the test chooses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pyarrow as pa

from tests.conftest import cloned_database, fresh_bucket
from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, ingesting
from trace_dagster.blocks import BlockRange
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.registry.as_of import AsOf, cuts
from trace_dagster.registry.connection import Database
from trace_dagster.registry.hot import HotBlock, HotRows, HotStore
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.snapshot_header import snapshot_header
from trace_dagster.store.objects import ObjectStore

FOLLOWING = """
kind: chain_sync
name: tip_{chain_id}
chain_id: {chain_id}
mode: {{kind: follow_head, from_block: {from_block}}}
defaults: {{rpc_pool: none, chunk_size: 100}}
streams: {{blocks: {{cryo_dataset_name: blocks}}, logs: {{cryo_dataset_name: logs}}}}
"""
DAY = datetime(2024, 1, 1, tzinfo=UTC)


def time_of(block):
    """Two blocks have the same time, as on a chain with two blocks a second."""
    return DAY + timedelta(seconds=block // 2)


def hash_of(block):
    return block.to_bytes(32)


class Tip:
    """One chain with two streams."""

    def __init__(self, database, store, chain_id=143, from_block=0, text=FOLLOWING):
        self.database, self.store, self.chain_id = database, store, chain_id
        self.streams = apply(database, text.format(chain_id=chain_id, from_block=from_block))
        self.hot_store = HotStore(database)
        self.lease = self.hot_store.hold(chain_id, "test", 600)

    def cold(self, key, start, end):
        commit_rows(self.database, self.store, self.streams[key], BlockRange(start, end), FULL)

    def hot(self, start, end, *keys):
        streams = [self.streams[key] for key in keys or self.streams]
        hashes = {stream.dataset_uuid: stream.config_hash for stream in streams}
        blocks = [
            HotBlock(n, hash_of(n), hash_of(n - 1), time_of(n), "full", self.rows(n, streams))
            for n in range(start, end)
        ]
        self.hot_store.store(self.lease, hashes, blocks)

    def rows(self, block, streams):
        """Return a row of each stream, with the columns that every row has."""
        known = {"block_number": block, "block_hash": hash_of(block), "block_timestamp": time_of(block)}
        index = {"blocks": {}, "logs": {"log_index": 0}}
        found = {stream.dataset_uuid: known | index[stream.dataset.name] for stream in streams}
        return {dataset: HotRows(tuple(row), [tuple(row.values())]) for dataset, row in found.items()}

    def final(self, number, *, safe=None):
        """Have the follower see the final block, and the safe one; their hashes are those of the stored blocks."""
        seen = {"finalized": (number, None)} | ({} if safe is None else {"safe": (safe, None)})
        self.hot_store.observe(self.lease, seen)

    def derived(self, key, columns):
        """Commit a dataset of a template, with these columns."""
        dataset, covered = uuid4(), BlockRange(0, 200)
        table = pa.table({column: pa.array(values, pa.int64()) for column, values in columns.items()})
        Jobs(self.database).add_derived(dataset, self.chain_id, key, {})
        target = CommitTarget(dataset, key, key, self.chain_id, covered, "sha256:x", table.schema, whole=True)
        rows = RangeRows([table], lambda: {"level": "full"}, {"name": "sql", "version": "1"})
        with ingesting(self.database, self.store) as ingest:
            ingest.commit_derived(dataset, uuid4(), target, rows, "run")
        return dataset

    def uuids(self, *keys):
        return [self.streams[key].dataset_uuid for key in keys or self.streams]

    def cuts(self, *keys, also=(), **as_of):
        with self.database.snapshot() as session:
            return cuts(session, AsOf(**as_of), [*self.uuids(*keys), *also])

    def cut(self, *keys, **as_of):
        """Return the cut of this chain alone, None if it is not cut."""
        return self.cuts(*keys, **as_of).get(self.chain_id)

    def header(self, *keys, cut=None, **more):
        with self.database.snapshot() as session:
            return snapshot_header(session, self.uuids(*keys), {self.chain_id: cut} if cut else {}, **more)


def settled_tip(database, store, chain_id=143):
    """Return a chain of which blocks 0 to 199 are committed and 200 to 299 hot; 290 is safe, and 279 final."""
    tip = Tip(database, store, chain_id)
    for key in tip.streams:
        tip.cold(key, 0, 100)
        tip.cold(key, 100, 200)
    tip.hot(200, 300)
    tip.final(279, safe=290)
    return tip


@contextmanager
def opened_services(postgres, template_database, s3_server) -> Iterator[tuple[Database, ObjectStore]]:
    """Open one database and one bucket for all tests of a module."""
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        database = Database(url)
        yield database, ObjectStore(access)
        database.close()
