-- name: try_planner_lock
select pg_try_advisory_xact_lock(hashtextextended('trace:planner', 0)) as locked;

-- name: active_ranges
select lower(r) as range_start, upper(r) as range_end
from (select unnest(range_agg(block_range)) as r from trace.tasks
      where dataset_uuid = %(dataset_uuid)s and state <> 'superseded'
        and block_range && int8range(%(range_start)s, %(range_end)s)) merged;

-- name: advance_stream
update trace.streams
set next_block = %(next_block)s, eligible_end = %(eligible_end)s, blocked_reason = %(blocked_reason)s
where dataset_uuid = %(dataset_uuid)s;

-- name: queued_count
select count(*) as queued from trace.tasks where dataset_uuid = %(dataset_uuid)s and state = 'queued';

-- name: launchable_tasks
-- Queued, or abandoned by a dead holder, and in no open batch; every pair of stream and range of a job.
select t.task_id, t.dataset_uuid, lower(t.block_range) as range_start, upper(t.block_range) as range_end
from trace.tasks t
join trace.streams s on s.dataset_uuid = t.dataset_uuid
where s.dataset_uuid = any(%(dataset_uuids)s) and s.enabled
  and (t.state = 'queued' or (t.state = 'running' and t.lease_expires_at < now()))
  and (t.batch_id is null or exists (
        select 1 from trace.batches b where b.batch_id = t.batch_id and b.closed_at is not null))
order by lower(t.block_range), t.dataset_uuid
limit %(limit)s
for update of t skip locked;

-- name: insert_batch
insert into trace.batches (batch_id, job_id, keys) values (%(batch_id)s, %(job_id)s, %(keys)s);

-- name: assign_batch
update trace.tasks set batch_id = %(batch_id)s where task_id = any(%(task_ids)s);

-- name: open_batches
select batch_id, job_id, keys, created_at < now() - make_interval(secs => %(grace_seconds)s) as old
from trace.batches where closed_at is null order by created_at;

-- name: close_batch
update trace.batches set closed_at = now() where batch_id = %(batch_id)s;

-- name: observe_head
insert into trace.head_observations (chain_id, rpc_pool, latest, finalized)
values (%(chain_id)s, %(rpc_pool)s, %(latest)s, %(finalized)s)
on conflict (chain_id, rpc_pool) do update set
    changed_at = case when trace.head_observations.finalized = excluded.finalized
                      then trace.head_observations.changed_at else now() end,
    latest = excluded.latest, finalized = excluded.finalized, observed_at = now();

-- name: observed_head
select latest, finalized, extract(epoch from now() - observed_at)::float8 as age_seconds,
       extract(epoch from now() - changed_at)::float8 as unchanged_seconds
from trace.head_observations where chain_id = %(chain_id)s and rpc_pool = %(rpc_pool)s;
