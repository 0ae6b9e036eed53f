"""The parts that every test of the commit path needs: a job, an ingester over real services, and the soundness
check.
"""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import sha256

import pyarrow as pa

from tests.support.hot_soundness import assert_hot_sound
from tests.support.layout_soundness import assert_layouts_sound
from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import parse
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.ingest.commit import Committer
from trace_dagster.ingest.heartbeat import Heartbeats
from trace_dagster.ingest.ingester import Ingester
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Bounds, Jobs
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.tasks import Tasks
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.store.caps import Caps
from trace_dagster.store.objects import ObjectStore

JOB = """
kind: chain_sync
name: {name}
chain_id: 99
mode: {{kind: fixed_target, from_block: 0, to_block: {to_block}}}
defaults: {{rpc_pool: none, chunk_size: {chunk}, max_inflight: {inflight}}}
streams:
  {streams}
"""
TWO_STREAMS = "blocks: {cryo_dataset_name: blocks}\n  logs: {cryo_dataset_name: logs}"


def job_text(name="job", to_block=1000, chunk=100, inflight=4, streams=TWO_STREAMS):
    return JOB.format(name=name, to_block=to_block, chunk=chunk, inflight=inflight, streams=streams)


def apply(database: Database, text: str | None = None):
    """Apply a job and return its streams by dataset key."""
    job = parse(text or job_text())
    jobs = Jobs(database)
    jobs.apply(job, Bounds(job.mode.from_block, getattr(job.mode, "to_block", None)))
    return {stream.dataset_key: stream for stream in jobs.streams() if stream.job_name == job.name}


@contextmanager
def ingesting(
    database: Database,
    store: ObjectStore,
    *,
    engine=None,
    url="made up",
    ttl=60.0,
    caps=None,
    max_attempts=3,
    piece_blocks=250,
):
    """Run an ingest path over real Postgres and S3; ``url`` is the node, which the fake engine does not need."""
    tasks = Tasks(database, lease_ttl_seconds=ttl, max_attempts=max_attempts)
    publications = Publications(database)
    heartbeats = Heartbeats(tasks)
    try:
        yield Ingester(
            tasks=tasks,
            publications=publications,
            committer=Committer(store, publications, caps or Caps()),
            extractor=Extractor(engine or FakeCryo(), piece_blocks=piece_blocks),
            heartbeats=heartbeats,
            pool=lambda spec: RpcPool(spec.rpc_pool, (url,)),
        )
    finally:
        heartbeats.close()


def assert_registry_sound(database: Database, store: ObjectStore) -> None:
    """Check that no ranges overlap, visible files have their digest, each commit has one event, attempts only grow,
    layouts' files show each row of their versions a single time (tests/support/layout_soundness.py), and hot and
    committed blocks are one chain without doubles (tests/support/hot_soundness.py).
    """
    assert_hot_sound(database)
    with database.connection() as connection:
        overlaps = connection.execute(
            "select count(*) as n from trace.dataset_versions a join trace.dataset_versions b"
            " on a.dataset_uuid = b.dataset_uuid and a.dataset_version < b.dataset_version"
            " and a.block_range && b.block_range and a.visible and b.visible"
        ).fetchone()
        assert overlaps["n"] == 0
        files = connection.execute(
            "select distinct f.file_key, f.sha256, f.bytes from trace.files f"
            " join trace.version_files using (file_key)"
            " join trace.dataset_versions using (dataset_version) where visible"
        ).fetchall()
        manifests = connection.execute(
            "select manifest_key, manifest_sha256 from trace.dataset_versions where swept_at is null"
        ).fetchall()
        events = connection.execute(
            "select (select count(*) from trace.outbox where kind = 'range_committed') as events,"
            " (select count(*) from trace.dataset_versions) as versions,"
            " (select count(*) from trace.attempts where state = 'committed') as attempts,"
            " (select count(*) from trace.changes where kind = 'committed') as changes,"
            " (select count(*) from trace.changes c join trace.dataset_versions v using"
            "  (dataset_version, dataset_uuid, block_range, generation) where c.kind = 'committed') as told"
        ).fetchone()
        assert events["events"] == events["versions"] == events["attempts"] == events["changes"] == events["told"]
        unsaid = connection.execute(
            "select count(*) as n from trace.invalidations i where not exists (select 1 from trace.changes c"
            " where c.dataset_version = i.dataset_version and c.kind = 'invalidated')"
        ).fetchone()
        assert unsaid["n"] == 0
        held = connection.execute(
            "select count(*) as n from trace.tasks t where t.state = 'running' and not exists"
            " (select 1 from trace.attempts a where a.task_id = t.task_id and a.attempt = t.attempt"
            "  and a.state = 'running' and a.lease_token = t.lease_token)"
        ).fetchone()
        assert held["n"] == 0
        committed = connection.execute(
            "select count(*) as n from trace.tasks t where t.state = 'committed' and not exists"
            " (select 1 from trace.dataset_versions v where v.dataset_uuid = t.dataset_uuid"
            "  and v.block_range = t.block_range and v.visible)"
        ).fetchone()
        assert committed["n"] == 0
        unlinked = connection.execute(
            "select count(*) as n from trace.dataset_versions v where v.swept_at is null and v.row_count > 0"
            " and not exists (select 1 from trace.version_files l"
            "  where l.dataset_version = v.dataset_version and l.replaced_at is null)"
        ).fetchone()
        assert unlinked["n"] == 0
    for row in files:
        data, _ = store.get(row["file_key"])
        assert (len(data), sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
    for row in manifests:
        data, _ = store.get(row["manifest_key"])
        assert sha256(data).hexdigest() == row["manifest_sha256"]
    assert_layouts_sound(database, store)


def keys_of(database: Database, dataset_key: str) -> list[str]:
    """Return the object keys of a dataset's visible rows, in block order."""
    found = next(files for entry, files in Catalog(database).lake() if entry.dataset_key == dataset_key)
    return [file.key for file in found]


def rows_of(store: ObjectStore, keys) -> pa.Table:
    """Return all rows of these Parquet objects."""
    import pyarrow.parquet as pq

    tables = [pq.read_table(pa.BufferReader(store.get(key)[0])) for key in keys]
    return pa.concat_tables(tables)


def ranges(stream, count):
    return [BlockRange(i * stream.chunk_size, (i + 1) * stream.chunk_size) for i in range(count)]
