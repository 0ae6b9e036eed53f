-- name: lock_apply
-- Serialize applies: they are rare, and their checks stay simple.
select pg_advisory_xact_lock(hashtextextended('trace:apply', 0));

-- name: job_by_name
-- One job of an organisation, by name.
select * from trace.jobs where org_id = %(org_id)s and name = %(name)s;

-- name: upsert_job
-- Insert a job, or update its mode and specification.
insert into trace.jobs (job_id, org_id, name, chain_id, mode, spec)
values (%(job_id)s, %(org_id)s, %(name)s, %(chain_id)s, %(mode)s, %(spec)s)
on conflict (job_id) do update set mode = excluded.mode, spec = excluded.spec, applied_at = now();

-- name: dataset_owner
-- The job that owns a dataset, and what cannot change about its stream.
select d.source, j.name as job_name, j.job_id, s.config_hash, s.chunk_size, s.form
from trace.datasets d
left join trace.streams s on s.dataset_uuid = d.dataset_uuid
left join trace.jobs j on j.job_id = s.job_id
where d.dataset_uuid = %(dataset_uuid)s;

-- name: insert_dataset
-- Register a dataset, unless it exists.
insert into trace.datasets (dataset_uuid, org_id, chain_id, dataset_key, kind, source, parameters)
values (%(dataset_uuid)s, %(org_id)s, %(chain_id)s, %(dataset_key)s, %(kind)s, %(source)s, %(parameters)s)
on conflict (dataset_uuid) do nothing;

-- name: upsert_stream
-- Insert a stream, or update what an apply may change, and clear its halt.
insert into trace.streams (
    dataset_uuid, job_id, rpc_pool, chunk_size, max_inflight, columns, config_hash, verify, options,
    from_block, to_block, next_block, form)
values (
    %(dataset_uuid)s, %(job_id)s, %(rpc_pool)s, %(chunk_size)s, %(max_inflight)s, %(columns)s, %(config_hash)s,
    %(verify)s, %(options)s, %(from_block)s, %(to_block)s, %(from_block)s, trace.lake_form())
on conflict (dataset_uuid) do update set
    columns = excluded.columns, config_hash = excluded.config_hash, form = excluded.form,
    rpc_pool = excluded.rpc_pool, chunk_size = excluded.chunk_size, max_inflight = excluded.max_inflight,
    verify = excluded.verify, options = excluded.options, to_block = excluded.to_block, enabled = true,
    from_block = excluded.from_block, halted_reason = null;

-- name: disable_other_streams
-- Disable the streams that were removed from a job's file.
update trace.streams set enabled = false
where job_id = %(job_id)s and not (dataset_uuid = any(%(kept)s));

-- name: lock_plan
-- Lock a stream's plan, so that no planner works on it while its geometry changes, or while somebody adds a range.
select pg_advisory_xact_lock(hashtextextended('trace:plan:' || %(dataset_uuid)s::text, 0));

-- name: supersede_uncommitted
-- Supersede tasks that are not committed, because the chunk size changed. Live leases finish or lapse first.
with locked as (
    select t.task_id from trace.tasks t
    where t.dataset_uuid = %(dataset_uuid)s and t.state in ('queued', 'failed', 'dead')
      and not exists (select 1 from trace.dataset_versions v
                      where v.dataset_uuid = t.dataset_uuid and v.visible and v.block_range = t.block_range)
    order by t.task_id for update of t)
update trace.tasks t set state = 'superseded', batch_id = null, updated_at = now()
from locked where t.task_id = locked.task_id;

-- name: supersede_unwanted
-- Supersede tasks outside of new bounds. Committed ranges stay.
with locked as (
    select t.task_id from trace.tasks t
    where t.dataset_uuid = %(dataset_uuid)s and t.state in ('queued', 'failed', 'dead')
      and not t.block_range <@ int8range(%(from_block)s, %(to_block)s)
      and not exists (select 1 from trace.dataset_versions v
                      where v.dataset_uuid = t.dataset_uuid and v.visible and v.block_range = t.block_range)
    order by t.task_id for update of t)
update trace.tasks t set state = 'superseded', batch_id = null, updated_at = now()
from locked where t.task_id = locked.task_id;

-- name: rewind_stream
-- Forget which blocks are planned. That is a hint: the plan is what is wanted minus what has a task.
update trace.streams set planned_from = from_block, next_block = from_block where dataset_uuid = %(dataset_uuid)s;

-- name: all_jobs
-- Every job of an organisation, by name.
select job_id, name from trace.jobs where org_id = %(org_id)s order by name;

-- name: set_job_enabled
-- Pause or resume a job.
update trace.jobs set enabled = %(enabled)s where org_id = %(org_id)s and name = %(name)s and enabled <> %(enabled)s;

-- name: waiting_tasks
-- Due tasks of a job, to be woken when it resumes.
select t.task_id from trace.tasks t join trace.streams s on s.dataset_uuid = t.dataset_uuid
where s.job_id = %(job_id)s and t.state = 'queued' and t.not_before <= now() limit %(limit)s;

-- name: all_streams
-- Every stream with its job and dataset, by job name and dataset key.
select s.*, d.dataset_key, d.source, d.chain_id, d.org_id, j.name as job_name, j.mode, j.spec,
       j.enabled as job_enabled
from trace.streams s
join trace.datasets d on d.dataset_uuid = s.dataset_uuid
join trace.jobs j on j.job_id = s.job_id
order by j.name, d.dataset_key;

-- name: stream_counts
-- Counts and sums of a job's streams. Committed ranges are summed up already; only the others are counted.
-- Reasons for lowered blocks are those of the newest ranges that have such blocks.
select s.dataset_uuid, done.*, left_over.*, why.*,
       extract(epoch from (select max(v.committed_at) - min(v.committed_at) from trace.dataset_versions v
        where v.dataset_uuid = s.dataset_uuid))::float8 as committing_seconds,
       (select t.error from trace.tasks t
        where t.dataset_uuid = s.dataset_uuid and t.error is not null
        order by (t.state in ('failed', 'dead')) desc, t.updated_at desc limit 1) as last_error,
       (select extract(epoch from now() - max(h.observed_at))::float8 from trace.head_observations h
        join trace.datasets d on d.org_id = h.org_id and d.chain_id = h.chain_id
        where d.dataset_uuid = s.dataset_uuid and h.rpc_pool = s.rpc_pool) as head_age_seconds
from trace.streams s
cross join lateral (
    select coalesce(sum(v.ranges), 0)::bigint as committed_ranges,
           coalesce(sum(v.row_count), 0)::bigint as committed_rows,
           coalesce(sum(v.byte_count), 0)::bigint as committed_bytes,
           coalesce(sum((select sum(upper(r) - lower(r)) from unnest(v.blocks) r)), 0)::bigint as committed_blocks,
           coalesce(jsonb_object_agg(v.level, v.ranges) filter (where v.ranges > 0), '{}') as verified
    from trace.visible_totals v where v.dataset_uuid = s.dataset_uuid) done
cross join lateral (
    select count(*) filter (where t.state = 'running' and t.lease_expires_at >= now()) as inflight,
           count(*) filter (where t.state in ('failed', 'dead')) as failed,
           count(*) filter (where t.state = 'queued' or (t.state = 'running' and t.lease_expires_at < now()))
               as queued,
           count(*) filter (where t.state = 'queued' and t.not_before > now()) as backing_off
    from trace.tasks t
    where t.dataset_uuid = s.dataset_uuid and t.state in ('queued', 'running', 'failed', 'dead')) left_over
cross join lateral (
    select coalesce(jsonb_agg(distinct open.each ->> 'reason'), '[]') as lowered_reasons
    from (select v.verification -> 'lowered' as lowered from trace.dataset_versions v
          where v.dataset_uuid = s.dataset_uuid and v.visible and v.verification -> 'lowered' -> 0 is not null
          order by v.committed_at desc limit 20) newest
    cross join lateral jsonb_array_elements(newest.lowered) open (each)) why
where s.job_id = %(job_id)s;

-- name: stream_presence
-- Blocks of streams that are committed or hot, and those between the first block and the last present one that are not.
with present as (
    select s.dataset_uuid, s.from_block, s.eligible_end / s.chunk_size * s.chunk_size as full_end, done.blocks as cold,
           coalesce(hs.blocks, '{}') - done.blocks as hot
    from trace.streams s
    left join hot.streams hs on hs.dataset_uuid = s.dataset_uuid and hs.config_hash = s.config_hash
    cross join lateral (select coalesce(range_agg(v.blocks), '{}') as blocks
                        from trace.visible_totals v where v.dataset_uuid = s.dataset_uuid) done
    where s.dataset_uuid = any(%(dataset_uuids)s)
), missing as (
    select p.dataset_uuid, r
    from present p, unnest(int8multirange(int8range(p.from_block, greatest(p.from_block, upper(p.cold + p.hot))))
                           - p.cold - p.hot) as r
)
select p.dataset_uuid,
       (select coalesce(sum(upper(r) - lower(r)), 0)::bigint from unnest(p.hot) r) as hot_blocks,
       (select coalesce(sum(upper(r) - lower(r)), 0)::bigint
        from unnest(p.hot * int8multirange(int8range(0, greatest(0, p.full_end)))) r) as hot_full_blocks,
       array(select lower(m.r) from missing m where m.dataset_uuid = p.dataset_uuid order by 1) as missing_starts,
       array(select upper(m.r) from missing m where m.dataset_uuid = p.dataset_uuid order by 1) as missing_ends
from present p;

-- name: failed_tasks
-- The first failed or dead ranges of a job, with their reasons.
select d.dataset_key, lower(t.block_range) as range_start, upper(t.block_range) as range_end, t.state, t.error
from trace.tasks t
join trace.streams s on s.dataset_uuid = t.dataset_uuid
join trace.datasets d on d.dataset_uuid = t.dataset_uuid
where s.job_id = %(job_id)s and t.state in ('failed', 'dead')
order by 1, 2 limit %(limit)s;

-- name: working_ranges
-- Ranges of a dataset that are queued or running, merged.
select lower(r) as range_start, upper(r) as range_end
from (select unnest(range_agg(block_range)) as r from trace.tasks
      where dataset_uuid = %(dataset_uuid)s and state in ('queued', 'running')) merged;

-- name: failed_ranges
-- Failed and dead ranges of a dataset, with their reasons.
select lower(block_range) as range_start, upper(block_range) as range_end, state, error
from trace.tasks where dataset_uuid = %(dataset_uuid)s and state in ('failed', 'dead')
order by 1 limit %(limit)s;
