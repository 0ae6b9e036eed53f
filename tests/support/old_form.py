"""A lake as a version before form 2 left it: rows with unsigned numbers, manifests of version 1, streams of form 1."""

from __future__ import annotations

import io
import json
from hashlib import sha256

import obstore
import pyarrow as pa
import pyarrow.parquet as pq

from trace_dagster.manifest import FILE_NAME
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore

OLD_HASH = "cryo_ingest.of_the_old_form:0123456789abcdef"
MADE_UP = 4_000_000_000
"""Block numbers of the old rows begin here: no question over the lake may find one."""


_VERSIONS = """
select v.dataset_version, v.manifest_key, array_agg(l.file_key) as keys
from trace.dataset_versions v
join trace.version_files l using (dataset_version)
left join trace.streams s using (dataset_uuid)
left join trace.jobs j using (job_id)
where %(job)s::text is null or j.name = %(job)s
group by v.dataset_version
"""
_STREAMS = """
update trace.streams s set form = 1, config_hash = %(hash)s from trace.jobs j
where j.job_id = s.job_id and (%(job)s::text is null or j.name = %(job)s)
"""
_TASKS = """
update trace.tasks t set config_hash = %(hash)s from trace.streams s
where s.dataset_uuid = t.dataset_uuid and s.config_hash = %(hash)s
"""


def make_old(database: Database, store: ObjectStore, job: str | None = None) -> dict[str, bytes]:
    """Turn every committed range, or those of one job, into one of form 1; return all objects, by key."""
    values = {"job": job, "hash": OLD_HASH}
    with database.connection() as connection:
        versions = connection.execute(_VERSIONS, values).fetchall()
        for version in versions:
            for key in version["keys"]:
                data = _old_parquet(store.get(key)[0])
                obstore.put(store._store, key, data)
                connection.execute(
                    "update trace.files set bytes = %s, sha256 = %s, etag = null where file_key = %s",
                    (len(data), sha256(data).hexdigest(), key),
                )
            manifest = json.loads(store.get(version["manifest_key"])[0])
            assert version["manifest_key"].endswith(FILE_NAME)
            data = json.dumps({**manifest, "version": 1, "config_hash": OLD_HASH}).encode()
            obstore.put(store._store, version["manifest_key"], data)
            connection.execute(
                "update trace.dataset_versions set form = 1, config_hash = case when (select kind from trace.datasets d"
                " where d.dataset_uuid = trace.dataset_versions.dataset_uuid) = 'stream' then %s else config_hash end,"
                " manifest_sha256 = %s where dataset_version = %s",
                (OLD_HASH, sha256(data).hexdigest(), version["dataset_version"]),
            )
        connection.execute(_STREAMS, values)
        connection.execute(_TASKS, values)
    return {key: store.get(key)[0] for key in store.keys("")}


def _old_parquet(data: bytes) -> bytes:
    rows = pq.read_table(io.BytesIO(data)).num_rows
    table = pa.table({"block_number": pa.array([MADE_UP + row for row in range(rows)], pa.uint32())})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
