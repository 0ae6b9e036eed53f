-- name: relations_in_snapshot
-- What this snapshot has of datasets, committed or hot, and the newest gaps up to the cut of their chain.
with cuts as (
    select unnest(%(cut_chains)s::bigint[]) as chain_id, unnest(%(cut_blocks)s::bigint[]) as block_number
), stored as materialized (
    select d.dataset_uuid, d.chain_id, d.dataset_key, d.kind, s.from_block, s.to_block, c.block_number as cut_block,
           coalesce(s.form, (select v.form from trace.dataset_versions v
                             where v.dataset_uuid = d.dataset_uuid and v.visible order by v.form limit 1)) as form,
           j.name as job_name,
           coalesce((select range_agg(t.blocks) from trace.visible_totals t where t.dataset_uuid = d.dataset_uuid), '{}')
               as committed,
           coalesce(h.blocks, '{}') as hot
    from trace.datasets d
    left join trace.streams s on s.dataset_uuid = d.dataset_uuid
    left join trace.jobs j on j.job_id = s.job_id
    left join hot.streams h on h.dataset_uuid = d.dataset_uuid and h.config_hash = s.config_hash
        and s.form = trace.lake_form()
    left join cuts c on c.chain_id = d.chain_id
    where d.dataset_uuid = any(%(dataset_uuids)s)
), whole as materialized (
    select dataset_uuid, chain_id, dataset_key, kind, from_block, to_block, cut_block, form, job_name,
           lower(hot) as first_hot,
           upper(committed) - 1 as last_committed, committed + hot as blocks
    from stored
), wanted as (
    select *, least(from_block, lower(blocks)) as first_wanted,
           least(to_block, coalesce(cut_block + 1, upper(blocks))) as wanted_end
    from whole
)
select dataset_uuid, chain_id, dataset_key, kind, first_hot, lower(blocks) as first_block, upper(blocks) - 1 as last_block,
       case when cut_block is null then upper(blocks)
            else upper(blocks * int8multirange(int8range(null, cut_block + 1))) end - 1 as last_shown,
       last_committed, found.newest_gaps, found.missing_blocks, job_name,
       nullif(form, trace.lake_form()) as old_form,
       array(select entry ->> 0
             from jsonb_array_elements(
                 (select v.schema_json from trace.dataset_versions v
                  where kind = 'derived' and v.dataset_uuid = wanted.dataset_uuid and v.visible
                  order by v.committed_at desc limit 1)) as entry) as derived_columns
from wanted
cross join lateral (
    -- a multirange gives its ranges in order
    select coalesce(sum(upper(gap) - lower(gap)), 0)::bigint as missing_blocks,
           coalesce(array_agg(gap) filter (where place > gaps - %(most_gaps)s), '{}') as newest_gaps
    from (select gap, place, count(*) over () as gaps
          from unnest(case when kind = 'stream' and first_wanted < wanted_end
                           then int8multirange(int8range(first_wanted, wanted_end)) - blocks
                      end) with ordinality as each_gap (gap, place)) counted) found
order by chain_id, dataset_key, dataset_uuid;

-- name: heads_of_chains
-- Heads of chains as the follower observed them, newest first. Hash and time are null if the block is not stored.
select h.chain_id, h.tag, h.block_number, coalesce(h.block_hash, c.block_hash) as block_hash, c.block_timestamp,
       greatest(extract(epoch from clock_timestamp() - h.observed_at), 0)::float8 as age_seconds
from hot.heads h
left join hot.chain c on c.org_id = h.org_id and c.chain_id = h.chain_id and c.block_number = h.block_number
    and c.block_hash = coalesce(h.block_hash, c.block_hash)
where h.org_id = %(org_id)s and h.chain_id = any(%(chain_ids)s)
order by h.chain_id, array_position(array['latest', 'safe', 'finalized'], h.tag);

-- name: chains_with_heads
-- Chains of which heads are stored.
select distinct chain_id from hot.heads where org_id = %(org_id)s order by chain_id;

-- name: highest_observation
-- The highest block of a chain that the planner observed, and the time of the database.
select max(latest) as latest, now() as moment
from trace.head_observations
where org_id = %(org_id)s and chain_id = %(chain_id)s;

-- name: last_block_until
-- The last stored block that is not later than a time, and whether the block after it is stored as well.
select c.block_number, n.block_number is not null as is_followed
from hot.chain c
left join hot.chain n on n.org_id = c.org_id and n.chain_id = c.chain_id and n.block_number = c.block_number + 1
where c.org_id = %(org_id)s and c.chain_id = %(chain_id)s and c.block_timestamp <= %(time)s
order by c.block_number desc limit 1;
