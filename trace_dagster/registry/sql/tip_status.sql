-- name: chain_tips
-- The tip of each chain that has streams at its head or that a follower ever held, with ages in seconds.
with wanted as (
    select distinct d.chain_id
    from trace.streams s
    join trace.datasets d on d.dataset_uuid = s.dataset_uuid
    join trace.jobs j on j.job_id = s.job_id
    where d.org_id = %(org_id)s and s.enabled and j.enabled and j.mode = 'follow_head' and d.source = any(%(sources)s)
      and not s.columns && %(lacking)s::text[] and s.halted_reason is null and s.form = trace.lake_form()
), followed as (
    select f.chain_id from hot.followers f where f.org_id = %(org_id)s
    union
    select chain_id from wanted
)
select c.chain_id, exists (select 1 from wanted w where w.chain_id = c.chain_id) as is_wanted, held.holder, f.reason,
       head.block_number as head, head.block_hash as head_hash,
       safe.block_number as safe, finalized.block_number as finalized, shown.latest as shown,
       extract(epoch from clock_timestamp() - chain.block_timestamp)::float8 as head_age_seconds,
       extract(epoch from clock_timestamp() - chain.stored_at)::float8 as stored_age_seconds,
       extract(epoch from clock_timestamp() - asked.observed_at)::float8 as asked_age_seconds,
       kept.blocks as hot_blocks, reorg.fork_block, reorg.depth, reorg.versions, reorg.age_seconds as reorg_age_seconds
from followed c
left join hot.followers f on f.org_id = %(org_id)s and f.chain_id = c.chain_id
left join lateral (select f.holder where f.expires_at > clock_timestamp()) held on true
left join hot.heads head on head.org_id = %(org_id)s and head.chain_id = c.chain_id and head.tag = 'latest'
left join hot.heads safe on safe.org_id = %(org_id)s and safe.chain_id = c.chain_id and safe.tag = 'safe'
left join hot.heads finalized
       on finalized.org_id = %(org_id)s and finalized.chain_id = c.chain_id and finalized.tag = 'finalized'
left join hot.chain chain
       on chain.org_id = %(org_id)s and chain.chain_id = c.chain_id and chain.block_number = head.block_number
left join lateral (
    select max(h.observed_at) as observed_at from hot.heads h where h.org_id = %(org_id)s and h.chain_id = c.chain_id
) asked on true
left join lateral (
    select max(h.latest) as latest from trace.head_observations h
    where h.org_id = %(org_id)s and h.chain_id = c.chain_id and h.error is null
) shown on true
left join lateral (
    select coalesce(sum(upper(part) - lower(part)), 0)::bigint as blocks
    from (select range_agg(t.blocks) as blocks from hot.streams t
          join trace.datasets d on d.dataset_uuid = t.dataset_uuid
          where d.org_id = %(org_id)s and d.chain_id = c.chain_id) every,
         unnest(every.blocks) part
) kept on true
left join lateral (
    select r.fork_block, r.depth, r.versions,
           extract(epoch from clock_timestamp() - r.found_at)::float8 as age_seconds
    from hot.reorgs r where r.org_id = %(org_id)s and r.chain_id = c.chain_id
    order by r.reorg_id desc limit 1
) reorg on true
order by c.chain_id;

-- name: hot_counts
-- The hot blocks of each stream: their number, the first and the last.
select t.dataset_uuid, sum(upper(part) - lower(part))::bigint as blocks, min(lower(part)) as first,
       max(upper(part)) - 1 as last
from hot.streams t, unnest(t.blocks) part
where t.dataset_uuid = any(%(dataset_uuids)s)
group by t.dataset_uuid;
