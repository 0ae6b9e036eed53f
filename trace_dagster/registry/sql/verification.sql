-- name: lock_borders
-- Lock the boundaries of a range, start before end, so that neighbours commit one after the other.
select pg_advisory_xact_lock(hashtextextended('trace:border:' || %(chain_id)s::text || ':' || block, 0))
from unnest(array[%(range_start)s, %(range_end)s]::bigint[]) as border (block);

-- name: fork_conflicts
-- Visible versions of the chain that meet this range at a boundary and have another hash there.
-- Boundaries first: few versions meet at one, however many a dataset has.
with met as materialized (
    select dataset_version, dataset_uuid, block_range, %(range_start)s - 1 as block,
           last_block_hash as committed, %(first_parent_hash)s::bytea as found
    from trace.dataset_versions where visible and upper(block_range) = %(range_start)s
    union all
    select dataset_version, dataset_uuid, block_range, %(range_start)s - 1, first_parent_hash,
           %(first_parent_hash)s::bytea
    from trace.dataset_versions where visible and lower(block_range) = %(range_start)s
    union all
    select dataset_version, dataset_uuid, block_range, %(range_end)s - 1, first_parent_hash,
           %(last_block_hash)s::bytea
    from trace.dataset_versions where visible and lower(block_range) = %(range_end)s
    union all
    select dataset_version, dataset_uuid, block_range, %(range_end)s - 1, last_block_hash,
           %(last_block_hash)s::bytea
    from trace.dataset_versions where visible and upper(block_range) = %(range_end)s)
select met.*, d.dataset_key, lower(block_range) as range_start, upper(block_range) as range_end
from met
join trace.datasets d using (dataset_uuid)
join trace.datasets own on own.dataset_uuid = %(dataset_uuid)s and own.org_id = d.org_id and own.chain_id = d.chain_id
where committed <> found and d.kind = 'stream'
  and not (met.dataset_uuid = %(dataset_uuid)s and block_range = int8range(%(range_start)s, %(range_end)s))
order by block, dataset_key;

-- name: hide_version
-- Hide a version that is not on the chain, or whose objects are lost.
update trace.dataset_versions set visible = false, hidden_at = now()
where dataset_version = %(dataset_version)s and visible
returning dataset_uuid, generation, lower(block_range) as range_start, upper(block_range) as range_end, last_block_hash;

-- name: record_invalidation
-- Store why a version was invalidated.
insert into trace.invalidations (dataset_version, reason) values (%(dataset_version)s, %(reason)s);

-- name: requeue_task
-- Queue one task again, with the reason.
update trace.tasks
set state = 'queued', failures = 0, expiries = 0, not_before = now(), batch_id = null, error = %(reason)s,
    updated_at = now()
where task_id = %(task_id)s and state = any(%(states)s)
returning task_id;

-- name: pools_of_versions
-- The rpc pools that versions are fetched from.
select distinct s.rpc_pool
from trace.dataset_versions v join trace.streams s on s.dataset_uuid = v.dataset_uuid
where v.dataset_version = any(%(versions)s);

-- name: tasks_of_versions
-- The tasks of visible versions, in the order in which they are locked.
select task_id from trace.dataset_versions where dataset_version = any(%(versions)s) and visible order by task_id;

-- name: record_lie
-- Record a lie of an endpoint. It weighs one, and half as much every ten minutes.
insert into trace.endpoints (rpc_pool, fingerprint, name, lies, score, lied_at, reason)
values (%(rpc_pool)s, %(fingerprint)s, %(name)s, 1, 1, now(), %(reason)s)
on conflict (rpc_pool, fingerprint) do update set
    name = excluded.name, lies = trace.endpoints.lies + 1, lied_at = now(), reason = excluded.reason,
    score = 1 + trace.endpoints.score
        * 0.5 ^ least(extract(epoch from now() - trace.endpoints.lied_at)::float8 / %(half_life_seconds)s, 100);

-- name: endpoint_scores
-- Every endpoint that lied, with its score now.
select rpc_pool, fingerprint, name, lies, reason,
       coalesce(score * 0.5 ^ least(extract(epoch from now() - lied_at)::float8 / %(half_life_seconds)s, 100), 0)::float8
           as score,
       extract(epoch from now() - lied_at)::float8 as lied_seconds
from trace.endpoints order by rpc_pool, name;

-- name: halt_stream
-- Stop a stream until its job is resumed.
update trace.streams set halted_reason = %(reason)s where dataset_uuid = %(dataset_uuid)s;

-- name: clear_halts
-- Let the halted streams of a job work again.
update trace.streams set halted_reason = null where job_id = %(job_id)s and halted_reason is not null;

-- name: evidence_files
-- Committed and fully proven rows of the chain's own datasets that touch a range, and the files that hold them now.
select d.source, d.dataset_uuid, v.dataset_version, lower(v.block_range) as range_start, upper(v.block_range) as range_end,
       v.schema_json, bool_or(f.layout_id is not null) as in_layout,
       array_agg(l.file_key order by coalesce(substring(l.file_key from '-p([0-9]+)\.parquet$')::int, 0)) as file_keys
from trace.datasets own
join trace.datasets d on d.org_id = own.org_id and d.chain_id = own.chain_id and d.kind = 'stream'
join trace.dataset_versions v on v.dataset_uuid = d.dataset_uuid and v.visible and v.form = trace.lake_form()
join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null
join trace.files f on f.file_key = l.file_key
where own.dataset_uuid = %(dataset_uuid)s and d.source = any(%(sources)s) and d.dataset_uuid <> own.dataset_uuid
  and v.verification ->> 'level' = 'full' and v.block_range && int8range(%(range_start)s, %(range_end)s)
group by d.dataset_uuid, v.dataset_version
order by d.dataset_uuid, lower(v.block_range);

-- name: versions_of_job
-- Every visible version of a job's streams that touches a range, with the keys of the files that hold its rows now.
select d.dataset_key, d.source, d.dataset_uuid, d.chain_id, v.dataset_version, lower(v.block_range) as range_start,
       upper(v.block_range) as range_end, v.generation, v.storage_ref, v.manifest_key, v.manifest_sha256,
       v.content_digest, v.row_count, v.schema_json, v.verification, v.first_parent_hash, v.last_block_hash,
       array(select l.file_key from trace.version_files l
             where l.dataset_version = v.dataset_version and l.replaced_at is null
             order by coalesce(substring(l.file_key from '-p([0-9]+)\.parquet$')::int, 0)) as file_keys
from trace.streams s
join trace.datasets d on d.dataset_uuid = s.dataset_uuid
join trace.dataset_versions v on v.dataset_uuid = s.dataset_uuid and v.visible and v.form = trace.lake_form()
where s.job_id = %(job_id)s and v.block_range && int8range(%(range_start)s, %(range_end)s)
order by d.dataset_key, lower(v.block_range);

-- name: files_of_job
-- The files of versions_of_job, each once, with the layout that wrote it and the blocks of every visible version in it.
select f.file_key, f.bytes, f.sha256, f.row_count, f.masked_blocks, f.layout_id, y.manifest_key, y.manifest_sha256,
       h.object_key as index_key, h.sha256 as index_sha256,
       (select range_agg(o.block_range)
        from trace.version_files k join trace.dataset_versions o on o.dataset_version = k.dataset_version and o.visible
        where k.file_key = f.file_key and k.replaced_at is null) as served
from trace.files f
left join trace.layouts y on y.layout_id = f.layout_id
left join trace.hash_indexes h on h.layout_id = f.layout_id
where f.file_key in (
    select l.file_key
    from trace.streams s
    join trace.dataset_versions v on v.dataset_uuid = s.dataset_uuid and v.visible and v.form = trace.lake_form()
    join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null
    where s.job_id = %(job_id)s and v.block_range && int8range(%(range_start)s, %(range_end)s));

-- name: note_unreliable
-- Store that an endpoint's answers to a method are not to be used for a while.
insert into trace.unreliable_methods (rpc_pool, fingerprint, method, name, reason)
values (%(rpc_pool)s, %(fingerprint)s, %(method)s, %(name)s, %(reason)s)
on conflict (rpc_pool, fingerprint, method) do update set
    name = excluded.name, reason = excluded.reason, noted_at = now();

-- name: delete_reliable_again
-- Delete the notes that no longer hold.
delete from trace.unreliable_methods where noted_at < now() - make_interval(secs => %(seconds)s);

-- name: unreliable_methods
-- Methods that are not asked at an endpoint now, and for how long.
select rpc_pool, fingerprint, method, name, reason,
       extract(epoch from noted_at - now())::float8 + %(seconds)s as left_seconds
from trace.unreliable_methods
where noted_at >= now() - make_interval(secs => %(seconds)s)
order by rpc_pool, name, method;
