-- name: try_lock_plan
-- Lock a stream's plan if no other planner works on it.
select pg_try_advisory_xact_lock(hashtextextended('trace:plan:' || %(dataset_uuid)s::text, 0)) as locked;

-- name: planned_stream
-- One stream with its job and dataset, read under the plan's lock.
select s.*, d.dataset_key, d.source, d.chain_id, d.org_id, j.name as job_name, j.mode, j.spec,
       j.enabled as job_enabled
from trace.streams s
join trace.datasets d on d.dataset_uuid = s.dataset_uuid
join trace.jobs j on j.job_id = s.job_id
where s.dataset_uuid = %(dataset_uuid)s;

-- name: active_ranges
-- Ranges of a dataset that have a task and touch the given range, merged.
select lower(r) as range_start, upper(r) as range_end
from (select unnest(range_agg(block_range)) as r from trace.tasks
      where dataset_uuid = %(dataset_uuid)s and state <> 'superseded'
        and block_range && int8range(%(range_start)s, %(range_end)s)) merged;

-- name: held_ranges
-- Ranges of these datasets that are visible, that have an active task, or that a run is open for, in block order.
select lower(block_range) as range_start, upper(block_range) as range_end
from (select t.block_range from trace.tasks t
      where t.dataset_uuid = any(%(dataset_uuids)s)
        and (t.state <> 'superseded'
             or exists (select 1 from trace.batches b where b.batch_id = t.batch_id and b.closed_at is null))
      union
      select v.block_range from trace.dataset_versions v
      where v.dataset_uuid = any(%(dataset_uuids)s) and v.visible) held
order by block_range;

-- name: covered_ranges_of_others
-- Ranges of other datasets that a dataset does not hold as such, although all of their blocks are visible in it.
with held as (
    select block_range from trace.dataset_versions where dataset_uuid = any(%(dataset_uuids)s) and visible
    union
    select block_range from trace.tasks where dataset_uuid = any(%(dataset_uuids)s) and state <> 'superseded'
), covered as (
    select t.dataset_uuid, range_agg(part) as blocks
    from trace.visible_totals t, unnest(t.blocks) as part
    where t.dataset_uuid = any(%(dataset_uuids)s)
    group by t.dataset_uuid
)
select c.dataset_uuid, lower(h.block_range) as range_start, upper(h.block_range) as range_end
from covered c join held h on h.block_range <@ c.blocks
where not exists (
    select 1 from trace.dataset_versions v
    where v.dataset_uuid = c.dataset_uuid and v.visible
      and lower(v.block_range) = lower(h.block_range) and v.block_range = h.block_range)
order by 1, 2;

-- name: advance_stream
-- Store the blocks that are planned, the eligible end, how far hot blocks are planned, and why the stream waits.
update trace.streams
set planned_from = %(planned_from)s, next_block = %(next_block)s, eligible_end = %(eligible_end)s,
    cold_end = greatest(cold_end, %(cold_end)s), blocked_reason = %(blocked_reason)s
where dataset_uuid = %(dataset_uuid)s;

-- name: hot_ranges
-- Blocks whose rows are hot, in block order, and whether the chain's follower goes on: it has observed the head lately.
select lower(r) as range_start, upper(r) as range_end,
       f.reason is null and h.observed_at > now() - make_interval(secs => %(patience_seconds)s) as followed
from trace.streams s
join trace.datasets d on d.dataset_uuid = s.dataset_uuid
join hot.streams hs on hs.dataset_uuid = s.dataset_uuid and hs.config_hash = s.config_hash
cross join lateral unnest(hs.blocks) as r
left join hot.followers f on f.org_id = d.org_id and f.chain_id = d.chain_id
left join hot.heads h on h.org_id = d.org_id and h.chain_id = d.chain_id and h.tag = 'latest'
where s.dataset_uuid = %(dataset_uuid)s
order by 1;

-- name: raise_cold_end
-- Plan the final whole cells of these streams also where their rows are hot; return how far, and the hot blocks of it.
with raised as (
    update trace.streams s
    set cold_end = greatest(s.cold_end, s.eligible_end / s.chunk_size * s.chunk_size)
    where s.dataset_uuid = any(%(dataset_uuids)s) and s.eligible_end is not null
    returning s.dataset_uuid, s.cold_end, s.config_hash)
select r.dataset_uuid, r.cold_end,
       coalesce((select sum(upper(b) - lower(b)) from unnest(
           hs.blocks * int8multirange(int8range(0, r.cold_end))
           - coalesce((select range_agg(t.block_range) from trace.tasks t
                       where t.dataset_uuid = r.dataset_uuid and t.state <> 'superseded'), '{}')) b), 0)::bigint as blocks
from raised r
left join hot.streams hs on hs.dataset_uuid = r.dataset_uuid and hs.config_hash = r.config_hash;

-- name: queued_count
-- Number of queued tasks of a dataset.
select count(*) as queued from trace.tasks where dataset_uuid = %(dataset_uuid)s and state = 'queued';

-- name: block_stream
-- Store why a stream may not be planned.
update trace.streams set blocked_reason = %(reason)s where dataset_uuid = %(dataset_uuid)s;

-- name: observe_head
-- Store the head that a pool showed under one rule of finality.
insert into trace.head_observations (org_id, chain_id, rpc_pool, finality_blocks, latest, finalized, observed_at)
values (%(org_id)s, %(chain_id)s, %(rpc_pool)s, %(finality_blocks)s, %(latest)s, %(finalized)s, now())
on conflict (org_id, chain_id, rpc_pool, finality_blocks) do update set
    changed_at = case when trace.head_observations.finalized = excluded.finalized
                      then trace.head_observations.changed_at else now() end,
    latest = excluded.latest, finalized = excluded.finalized, observed_at = now(), asked_at = now(), error = null;

-- name: observe_failure
-- Store why a pool did not answer.
insert into trace.head_observations (org_id, chain_id, rpc_pool, finality_blocks, error)
values (%(org_id)s, %(chain_id)s, %(rpc_pool)s, %(finality_blocks)s, %(error)s)
on conflict (org_id, chain_id, rpc_pool, finality_blocks) do update set asked_at = now(), error = excluded.error;

-- name: observed_head
-- The head that a pool showed last under one rule of finality, with ages in seconds.
select latest, finalized, error, extract(epoch from now() - observed_at)::float8 as age_seconds,
       extract(epoch from now() - changed_at)::float8 as unchanged_seconds,
       extract(epoch from now() - asked_at)::float8 as asked_seconds
from trace.head_observations
where org_id = %(org_id)s and chain_id = %(chain_id)s and rpc_pool = %(rpc_pool)s
  and finality_blocks = %(finality_blocks)s;
