"""A registry as it is after many commits: one real commit per stream, whose rows are copied for each other range.

The copies satisfy every constraint and trigger, table by table. Only their task ids are not those of
:func:`trace_dagster.identity.task_id`, because no test looks up these ranges by id.
"""

from __future__ import annotations

from hashlib import sha256

from tests.support.registry import apply
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.identity import dataset_version
from trace_dagster.manifest import FILE_NAME, Manifest, ManifestFile, schema_fingerprint, schema_pairs
from trace_dagster.planning.dispatcher import Dispatcher, loaded_names
from trace_dagster.planning.heads import pool_of
from trace_dagster.planning.planner import Planner
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.tasks import Lease, Tasks
from trace_dagster.wakeups.outbox import Outbox
from trace_dagster.wakeups.postgres import PgQueueDriver

CHUNK = 1000
DATASETS = ("blocks", "transactions", "logs", "traces", "geth_calls")
HASH = "0x" + "ab" * 32
"""The hash of every boundary block, so that any two ranges are on one chain."""

_JOB = """
kind: chain_sync
name: {name}
chain_id: {chain_id}
mode: {{kind: follow_head, from_block: 0, tail_lag: 0, max_head_age_seconds: 86400}}
defaults: {{rpc_pool: none, chunk_size: {chunk}, max_inflight: 16}}
streams:
{streams}
"""

_COPIES = """
create temporary table copies on commit drop as
select n, gen_random_uuid() as task_id, gen_random_uuid() as dataset_version,
       int8range(n * %(chunk)s::bigint, (n + 1) * %(chunk)s::bigint) as block_range,
       format('cryo/%%s/%%s_%%s/', %(dataset)s::text, n * %(chunk)s::bigint, (n + 1) * %(chunk)s::bigint) as folder
from generate_series(1, %(ranges)s::bigint - 1) n
"""

_OVERRIDES = {
    "tasks": "'task_id', c.task_id, 'block_range', c.block_range",
    "attempts": "'task_id', c.task_id, 'lease_token', gen_random_uuid()",
    "dataset_versions": (
        "'dataset_version', c.dataset_version, 'task_id', c.task_id, 'block_range', c.block_range,"
        " 'storage_ref', 's3://lake/' || c.folder, 'manifest_key', c.folder || '_manifest.json',"
        " 'committed_at', o.committed_at + c.n * interval '0.1 seconds'"
    ),
    "files": "'file_key', c.folder || 'rows.parquet'",
    "version_files": "'dataset_version', c.dataset_version, 'file_key', c.folder || 'rows.parquet'",
    "outbox": (
        "'outbox_id', gen_random_uuid(), 'task_id', c.task_id, 'payload', case o.kind when 'range_committed'"
        " then o.payload || jsonb_build_object('dataset_version', c.dataset_version) else o.payload end"
    ),
    "changes": ("'change_id', o.change_id + c.n, 'dataset_version', c.dataset_version, 'block_range', c.block_range"),
}
"""The values that differ between the rows of two commits, by table, in the order of the foreign keys."""

_MINE = {
    "files": "o.file_key in (select file_key from trace.version_files where dataset_version = %(version)s)",
    "version_files": "o.dataset_version = %(version)s",
    "changes": "o.dataset_version = %(version)s",
}
"""Conditions for the rows of the one real commit in tables without its task id."""

_BATCHES = """
insert into trace.batches (batch_id, job_id, keys, tasks, created_at, launched_at, closed_at)
select gen_random_uuid(), %(job)s, array_agg(n::text), count(*), now(), now(), now()
from generate_series(1, %(ranges)s::bigint) n group by n / 256
"""


def fill(
    database: Database, ranges: int, *, name: str = "filled", streams: int = 5, analyzed: bool = True
) -> list[StreamRow]:
    """Apply a job, commit ``ranges`` ranges in each of its streams, set the head to their end, and mark them as
    reported.

    Unless ``analyzed``, Postgres's statistics do not contain them yet.
    """
    chain_id = 10_000 + len(Jobs(database).streams())
    lines = [f"  {key}: {{cryo_dataset_name: {key}}}" for key in DATASETS[:streams]]
    apply(database, _JOB.format(name=name, chain_id=chain_id, chunk=CHUNK, streams="\n".join(lines)))
    jobs, outbox, queue = Jobs(database), Outbox(database), PgQueueDriver(database)
    planner, dispatcher = Planner(database, jobs), Dispatcher(database, jobs, queue)
    mine = streams_of(jobs, name)
    show_head(database, mine[0], CHUNK)
    planner.plan()
    outbox.publish(queue, limit=1000)
    for stream in mine:
        commit_range(database, stream, BlockRange(0, CHUNK))
    dispatcher.tick(lambda *_: {}, lambda _: {}, loaded_names(mine))
    outbox.mark_confirmed(
        [commit.outbox_id for commit in outbox.unconfirmed_commits(older_than_seconds=-1, limit=1000)]
    )
    for stream in mine:
        _copy(database, stream, ranges)
    with database.connection() as connection:
        connection.execute(_BATCHES, {"job": mine[0].job_id, "ranges": ranges})
    show_head(database, mine[0], ranges * CHUNK)
    if planner.plan():
        raise AssertionError("the planner does not take the copies for committed ranges")
    if analyzed:
        vacuum(database)
    return streams_of(jobs, name)


def vacuum(database: Database) -> None:
    """Do what autovacuum does after this many changes."""
    with database.connection() as connection:
        connection.autocommit = True
        connection.execute("vacuum analyze")
        connection.autocommit = False


def streams_of(jobs: Jobs, name: str) -> list[StreamRow]:
    """Return the present rows of one job's streams."""
    return [stream for stream in jobs.streams() if stream.job_name == name]


def show_head(database: Database, stream: StreamRow, blocks: int) -> None:
    """Record a head of the stream's pool with this many blocks, all final."""
    with database.transaction() as session:
        session.run("observe_head", **pool_of(stream), latest=blocks - 1, finalized=blocks - 1)


def commit_range(database: Database, stream: StreamRow, block_range: BlockRange) -> None:
    """Claim a planned range and commit generated rows: everything that a commit writes, except the objects."""
    lease = claim(database, stream, block_range)
    publish(database, lease, stream, block_range)


def claim(database: Database, stream: StreamRow, block_range: BlockRange) -> Lease:
    """Return the lease of a planned range."""
    identity = stream.task_id(block_range)
    lease = Tasks(database).claim(identity, stream.dataset_uuid, block_range, "run")
    if not isinstance(lease, Lease):
        raise AssertionError(lease)
    return lease


def publish(database: Database, lease: Lease, stream: StreamRow, block_range: BlockRange) -> None:
    """Commit a lease."""
    manifest = _manifest(lease, stream, block_range)
    folder = f"cryo/{stream.dataset_uuid}/{block_range.start}_{block_range.end}/"
    Publications(database).commit(
        lease,
        manifest,
        storage_ref=f"s3://lake/{folder}",
        manifest_key=folder + FILE_NAME,
        manifest_sha256=_digest("manifest"),
        schema=schema_pairs(dataset(stream.dataset.name).schema(stream.columns)),
        metrics={"seconds": 1.25, "pieces": 4},
    )


def _manifest(lease: Lease, stream: StreamRow, block_range: BlockRange) -> Manifest:
    key = f"cryo/{stream.dataset_uuid}/{block_range.start}_{block_range.end}/{lease.tag}.parquet"
    file = ManifestFile(
        key=key,
        bytes=1_000_000,
        sha256=_digest(key),
        rows=50_000,
        min_block=block_range.start,
        max_block=block_range.end - 1,
    )
    return Manifest(
        dataset_uuid=stream.dataset_uuid,
        dataset_version=dataset_version(
            stream.dataset_uuid, stream.config_hash, stream.chain_id, block_range, lease.generation
        ),
        chain_id=stream.chain_id,
        dataset_key=stream.dataset_key,
        cryo_dataset_name=stream.dataset.name,
        range_start=block_range.start,
        range_end=block_range.end,
        config_hash=stream.config_hash,
        generation=lease.generation,
        attempt=lease.attempt,
        schema_fingerprint=schema_fingerprint(dataset(stream.dataset.name).schema(stream.columns)),
        parquet_keys=[key],
        files=[file],
        rows=file.rows,
        content_digest=_digest("rows"),
        verification={
            "asked": "full",
            "level": "full",
            "checks": ["block_hash", "parent_hash", "receipts_root", "transactions_root"],
            "unproven": ["gas_price"],
            "boundary": {"first_parent_hash": HASH, "last_block_hash": HASH},
        },
        engine={"name": "cryo", "version": "0.3.2"},
    )


def _copy(database: Database, stream: StreamRow, ranges: int) -> None:
    with database.connection() as connection:
        first = connection.execute(
            "select task_id, dataset_version from trace.dataset_versions where dataset_uuid = %s", [stream.dataset_uuid]
        ).fetchone()
        values = {"task": first["task_id"], "version": first["dataset_version"]}
        connection.execute(_COPIES, {"chunk": CHUNK, "ranges": ranges, "dataset": str(stream.dataset_uuid)})
        for table, overrides in _OVERRIDES.items():
            connection.execute(
                f"insert into trace.{table} overriding system value select made.* from trace.{table} o"
                f" cross join copies c"
                f" cross join lateral jsonb_populate_record(o, jsonb_build_object({overrides})) made"
                f" where {_MINE.get(table, 'o.task_id = %(task)s')}",
                values,
            )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
