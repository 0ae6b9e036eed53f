-- name: hold_chain
-- Grant the lease of a chain's follower, unless another holder has it. A new token fences every earlier holder.
insert into hot.followers as f (org_id, chain_id, token, holder, expires_at)
values (%(org_id)s, %(chain_id)s, 1, %(holder)s, clock_timestamp() + make_interval(secs => %(ttl_seconds)s))
on conflict (org_id, chain_id) do update
set token = f.token + 1, holder = excluded.holder,
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
where f.expires_at is null or f.expires_at < clock_timestamp()
returning token;

-- name: renew_follower
-- Renew the lease of a chain's follower.
update hot.followers set expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
where org_id = %(org_id)s and chain_id = %(chain_id)s and token = %(token)s and holder is not null;

-- name: release_follower
-- Give the lease back. The holder is fenced as well.
update hot.followers set token = token + 1, holder = null, expires_at = null
where org_id = %(org_id)s and chain_id = %(chain_id)s and token = %(token)s;

-- name: fence_follower
-- Lock the holder's right to write until the transaction ends.
select token from hot.followers
where org_id = %(org_id)s and chain_id = %(chain_id)s and token = %(token)s for update;

-- name: stop_follower
-- Store why the follower does not go on, or null if it does.
update hot.followers set reason = %(reason)s
where org_id = %(org_id)s and chain_id = %(chain_id)s and token = %(token)s;

-- name: rechecked_chain
-- The follower has compared its chain with the node.
update hot.followers set recheck_from = null
where org_id = %(org_id)s and chain_id = %(chain_id)s and token = %(token)s;

-- name: follower
-- The follower of a chain, whether it has a holder now, and why it stopped.
select token, holder, expires_at >= now() as is_held, reason, recheck_from from hot.followers
where org_id = %(org_id)s and chain_id = %(chain_id)s;

-- name: share_chain
-- Keep the chain's forks away until the transaction ends; commits may run at the same time.
select pg_advisory_xact_lock_shared(hashtextextended('trace:chain:' || %(chain_id)s::text, 0));

-- name: lock_chain
-- Wait until no commit of the chain is under way, and let none begin until the transaction ends.
select pg_advisory_xact_lock(hashtextextended('trace:chain:' || %(chain_id)s::text, 0));

-- name: lock_block_borders
-- Lock the boundaries of consecutive blocks in ascending order, as a commit locks those of its range.
select pg_advisory_xact_lock(hashtextextended('trace:border:' || %(chain_id)s::text || ':' || block, 0))
from generate_series(%(first)s::bigint, %(last)s::bigint + 1) as border (block);

-- name: chain_segments
-- The consecutive stored blocks of a chain: the first and the last one of each segment.
with linked as (
    select block_number, block_hash, parent_hash, block_timestamp,
           lag(block_number) over by_number as before, lead(block_number) over by_number as after
    from hot.chain where org_id = %(org_id)s and chain_id = %(chain_id)s
    window by_number as (order by block_number))
select block_number, block_hash, parent_hash, block_timestamp, before is distinct from block_number - 1 as is_first,
       after is distinct from block_number + 1 as is_last
from linked
where before is distinct from block_number - 1 or after is distinct from block_number + 1
order by block_number;

-- name: chain_between
-- Hashes of stored blocks of a chain, both ends included.
select block_number, block_hash, parent_hash from hot.chain
where org_id = %(org_id)s and chain_id = %(chain_id)s and block_number between %(first)s and %(last)s
order by block_number;

-- name: chain_head
-- The newest stored block of a chain.
select block_number, block_hash from hot.chain
where org_id = %(org_id)s and chain_id = %(chain_id)s order by block_number desc limit 1;

-- name: insert_chain
-- Store blocks of a chain, unless they are stored.
insert into hot.chain (org_id, chain_id, block_number, block_hash, parent_hash, block_timestamp, level, shown_at)
select %(org_id)s, %(chain_id)s, *
from unnest(%(numbers)s::bigint[], %(hashes)s::bytea[], %(parents)s::bytea[], %(timestamps)s::timestamptz[],
            %(levels)s::text[], %(shown)s::timestamptz[])
on conflict do nothing;

-- name: delete_chain
-- Remove blocks of a chain.
delete from hot.chain
where org_id = %(org_id)s and chain_id = %(chain_id)s
  and block_number >= %(range_start)s and block_number < %(range_end)s;

-- name: prune_chain
-- Remove the hashes of old blocks, except for those whose rows are hot: a paused stream keeps its own for years.
with kept as (
    select coalesce(range_agg(r), '{}') as blocks
    from hot.streams h join trace.datasets d on d.dataset_uuid = h.dataset_uuid, unnest(h.blocks) r
    where d.org_id = %(org_id)s and d.chain_id = %(chain_id)s),
old as (
    select unnest(int8multirange(int8range(0, greatest(0, %(below)s))) - kept.blocks) as blocks from kept)
delete from hot.chain c using old
where c.org_id = %(org_id)s and c.chain_id = %(chain_id)s
  and c.block_number >= lower(old.blocks) and c.block_number < upper(old.blocks);

-- name: versions_on_other_chains
-- Visible versions of a chain's streams that meet blocks at a boundary and have another hash there.
-- ``numbers`` and ``hashes`` are the blocks, preceded by the parent of the first one.
with given as (
    select number, hash from unnest(%(numbers)s::bigint[], %(hashes)s::bytea[]) as b (number, hash)),
met as materialized (
    select v.dataset_version, v.dataset_uuid, v.block_range, g.number as block, v.last_block_hash as committed,
           g.hash as found
    from given g join trace.dataset_versions v on v.visible and upper(v.block_range) = g.number + 1
    union all
    select v.dataset_version, v.dataset_uuid, v.block_range, g.number, v.first_parent_hash, g.hash
    from given g join trace.dataset_versions v on v.visible and lower(v.block_range) = g.number + 1)
select met.*, d.dataset_key, lower(block_range) as range_start, upper(block_range) as range_end
from met join trace.datasets d using (dataset_uuid)
where d.org_id = %(org_id)s and d.chain_id = %(chain_id)s and d.kind = 'stream' and committed <> found
order by block, dataset_key;

-- name: boundaries_of_versions
-- The last blocks of visible versions of a chain's streams with their hashes, from a block downwards.
select distinct upper(v.block_range) - 1 as block, v.last_block_hash
from trace.dataset_versions v join trace.datasets d on d.dataset_uuid = v.dataset_uuid
where v.visible and v.last_block_hash is not null and upper(v.block_range) <= %(below)s
  and d.org_id = %(org_id)s and d.chain_id = %(chain_id)s and d.kind = 'stream'
order by block desc limit %(limit)s;

-- name: admit_streams
-- Let streams have hot rows. Runs under the lock of the chain, because a commit looks once whether there are some.
insert into hot.streams (dataset_uuid, config_hash)
select dataset_uuid, config_hash from trace.streams where dataset_uuid = any(%(datasets)s)
on conflict do nothing;

-- name: admitted_streams
-- Which of these streams can have hot rows already.
select dataset_uuid from hot.streams where dataset_uuid = any(%(datasets)s);

-- name: lock_hot_streams
-- Lock the hot rows of datasets, in one order.
select dataset_uuid from hot.streams where dataset_uuid = any(%(datasets)s) order by dataset_uuid for update;

-- name: hot_datasets_of_chain
-- Every dataset of a chain that has or had hot rows.
select h.dataset_uuid from hot.streams h join trace.datasets d on d.dataset_uuid = h.dataset_uuid
where d.org_id = %(org_id)s and d.chain_id = %(chain_id)s;

-- name: hot_of_datasets
-- Hot and committed blocks of datasets within a range, and blocks that are both.
select h.dataset_uuid, d.dataset_key, d.source, h.config_hash, s.config_hash as wanted_hash, h.blocks as all_blocks,
       h.blocks * span.blocks as blocks, done.committed, done.twice,
       (select coalesce(sum(upper(r) - lower(r)), 0)::bigint from unnest(h.blocks) as r) as hot_blocks
from hot.streams h
join trace.datasets d on d.dataset_uuid = h.dataset_uuid
join trace.streams s on s.dataset_uuid = h.dataset_uuid
cross join (select int8multirange(int8range(%(range_start)s, %(range_end)s)) as blocks) span
cross join lateral (  -- what is common first: all that is committed may be thousands of ranges
    select (select coalesce(range_agg(r), '{}') from trace.visible_totals t, unnest(t.blocks * span.blocks) as r
            where t.dataset_uuid = h.dataset_uuid) as committed,
           (select coalesce(range_agg(r), '{}') from trace.visible_totals t, unnest(t.blocks * h.blocks) as r
            where t.dataset_uuid = h.dataset_uuid) as twice) done
where h.dataset_uuid = any(%(datasets)s)
order by h.dataset_uuid;

-- name: hot_states
-- Hot and committed blocks of every stream of a chain that can have hot rows.
select s.dataset_uuid, h.config_hash, h.blocks, done.blocks as committed
from trace.streams s
join trace.datasets d on d.dataset_uuid = s.dataset_uuid
left join hot.streams h on h.dataset_uuid = s.dataset_uuid
cross join lateral (
    select coalesce(range_agg(r), '{}') as blocks
    from trace.visible_totals t, unnest(t.blocks) as r where t.dataset_uuid = s.dataset_uuid) done
where d.org_id = %(org_id)s and d.chain_id = %(chain_id)s and d.source = any(%(sources)s)
order by s.dataset_uuid;

-- name: add_hot_blocks
-- Add blocks to those whose rows are hot.
update hot.streams set blocks = blocks + %(blocks)s::int8multirange where dataset_uuid = %(dataset_uuid)s;

-- name: remove_hot_blocks
-- Take blocks from those whose rows are hot.
update hot.streams set blocks = blocks - %(blocks)s::int8multirange where dataset_uuid = %(dataset_uuid)s;

-- name: configure_hot_stream
-- Store the configuration that the rows of a stream have from now on.
update hot.streams set config_hash = %(config_hash)s where dataset_uuid = %(dataset_uuid)s;

-- name: delete_hot_blocks
-- Delete hot rows of dataset blocks.
delete from hot.blocks
where dataset_uuid = %(dataset_uuid)s and block_number >= %(range_start)s and block_number < %(range_end)s;

-- name: delete_hot_transactions
-- Delete hot rows of dataset transactions.
delete from hot.transactions
where dataset_uuid = %(dataset_uuid)s and block_number >= %(range_start)s and block_number < %(range_end)s;

-- name: delete_hot_logs
-- Delete hot rows of dataset logs.
delete from hot.logs
where dataset_uuid = %(dataset_uuid)s and block_number >= %(range_start)s and block_number < %(range_end)s;

-- name: copy_hot_blocks
-- Store hot rows of dataset blocks, with every column of the table.
copy hot.blocks from stdin (format binary);

-- name: copy_hot_transactions
-- Store hot rows of dataset transactions, with every column of the table.
copy hot.transactions from stdin (format binary);

-- name: copy_hot_logs
-- Store hot rows of dataset logs, with every column of the table.
copy hot.logs from stdin (format binary);

-- name: hot_columns
-- Columns of the tables of hot rows and their types, in the order in which COPY takes them.
select c.relname::text as table_name, a.attname::text as column_name, t.typname::text as type_name
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
where c.relnamespace = 'hot'::regnamespace and c.relname = any(%(tables)s)
order by c.relname, a.attnum;

-- name: show_latest_head
-- Store the newest stored block as the chain's latest head.
insert into hot.heads as h (org_id, chain_id, tag, block_number, block_hash)
select org_id, chain_id, 'latest', block_number, block_hash from hot.chain
where org_id = %(org_id)s and chain_id = %(chain_id)s order by block_number desc limit 1
on conflict (org_id, chain_id, tag) do update
set block_number = excluded.block_number, block_hash = excluded.block_hash, observed_at = clock_timestamp()
where (h.block_number, h.block_hash) is distinct from (excluded.block_number, excluded.block_hash);

-- name: observe_tag
-- Store what the node calls safe or finalized. A hash that the node did not tell is that of the stored block.
insert into hot.heads as h (org_id, chain_id, tag, block_number, block_hash)
values (%(org_id)s, %(chain_id)s, %(tag)s, %(block)s, coalesce(%(hash)s, (
    select block_hash from hot.chain
    where org_id = %(org_id)s and chain_id = %(chain_id)s and block_number = %(block)s)))
on conflict (org_id, chain_id, tag) do update
set block_number = excluded.block_number, block_hash = excluded.block_hash, observed_at = clock_timestamp();

-- name: confirm_latest_head
-- Store that the newest stored block is still the chain's latest.
update hot.heads set observed_at = clock_timestamp()
where org_id = %(org_id)s and chain_id = %(chain_id)s and tag = 'latest' and block_number = %(block)s;

-- name: rehash_heads
-- Give the heads above a fork the hashes of the new chain.
update hot.heads h
set block_hash = (select c.block_hash from hot.chain c
                  where c.org_id = h.org_id and c.chain_id = h.chain_id and c.block_number = h.block_number)
where h.org_id = %(org_id)s and h.chain_id = %(chain_id)s and h.block_number >= %(fork_block)s;

-- name: tasks_above_fork
-- Lock the tasks of all visible versions that touch blocks of a fork, in the order in which tasks are locked.
select t.task_id from trace.tasks t
where t.task_id in (
    select v.task_id from trace.dataset_versions v join trace.datasets d on d.dataset_uuid = v.dataset_uuid
    where v.visible and upper(v.block_range) > %(fork_block)s
      and d.org_id = %(org_id)s and d.chain_id = %(chain_id)s and d.kind = 'stream')
order by t.task_id for update;

-- name: hide_above_fork
-- Hide the visible versions that touch blocks of a fork, unless their last block is of the new chain.
-- Versions are locked in the order in which a swap of layouts locks them.
with outdated as (
    select v.dataset_version
    from trace.dataset_versions v
    join trace.datasets d on d.dataset_uuid = v.dataset_uuid
    left join hot.chain c on c.org_id = d.org_id and c.chain_id = d.chain_id
         and c.block_number = upper(v.block_range) - 1
    where v.visible and upper(v.block_range) > %(fork_block)s and v.task_id = any(%(tasks)s)
      and d.org_id = %(org_id)s and d.chain_id = %(chain_id)s and d.kind = 'stream'
      and c.block_hash is distinct from coalesce(v.last_block_hash, '')
    order by v.dataset_version for update of v)
update trace.dataset_versions v set visible = false, hidden_at = now()
from outdated where v.dataset_version = outdated.dataset_version
returning v.dataset_version, v.dataset_uuid, v.task_id, v.generation, lower(v.block_range) as range_start,
          upper(v.block_range) as range_end, v.last_block_hash;

-- name: record_invalidations
-- Store why versions were invalidated.
insert into trace.invalidations (dataset_version, reason) select unnest(%(versions)s::uuid[]), %(reason)s;

-- name: requeue_committed
-- Queue locked tasks again, with the reason. Those that are queued or running go on as they are.
update trace.tasks
set state = 'queued', failures = 0, expiries = 0, not_before = now(), batch_id = null, error = %(reason)s,
    updated_at = now()
where task_id = any(%(task_ids)s) and state in ('committed', 'failed', 'dead')
returning task_id;

-- name: insert_reorg
-- Record a fork that was resolved.
insert into hot.reorgs (org_id, chain_id, fork_block, old_head, old_hash, new_head, new_hash, depth, versions)
values (%(org_id)s, %(chain_id)s, %(fork_block)s, %(old_head)s, %(old_hash)s, %(new_head)s, %(new_hash)s, %(depth)s,
        %(versions)s);

-- name: chain_at_borders
-- Stored blocks at the boundaries of a range of a dataset's chain.
select c.block_number, c.block_hash, c.parent_hash
from trace.datasets d
join hot.chain c on c.org_id = d.org_id and c.chain_id = d.chain_id
where d.dataset_uuid = %(dataset_uuid)s
  and c.block_number = any(array[%(range_start)s - 1, %(range_start)s, %(range_end)s - 1, %(range_end)s]::bigint[]);

-- name: recheck_chain_of
-- Have the follower of a dataset's chain compare its blocks with the node from a block on.
-- Tells whether it was asked before and has not done it, or nobody follows the chain now.
with asked as (
    select f.org_id, f.chain_id,
           f.recheck_from is not null or coalesce(f.expires_at < clock_timestamp(), true) as is_unanswered
    from hot.followers f join trace.datasets d on d.org_id = f.org_id and d.chain_id = f.chain_id
    where d.dataset_uuid = %(dataset_uuid)s for update of f)
update hot.followers f set recheck_from = least(f.recheck_from, %(block)s)
from asked where f.org_id = asked.org_id and f.chain_id = asked.chain_id
returning asked.is_unanswered;
