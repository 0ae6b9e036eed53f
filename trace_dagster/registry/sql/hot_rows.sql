-- name: hot_window
-- A dataset's hot blocks within these; if asked, the hashes of those within these times, one after the other.
select t.config_hash, t.columns, d.source, w.blocks,
       (select coalesce(sum(upper(part) - lower(part)), 0)::bigint from unnest(w.blocks) as part) as block_count,
       c.known, c.numbers, c.hashes
from hot.streams s
join trace.streams t
    on t.dataset_uuid = s.dataset_uuid and t.config_hash = s.config_hash and t.form = trace.lake_form()
join trace.datasets d on d.dataset_uuid = s.dataset_uuid
cross join lateral (select s.blocks * %(blocks)s::int8multirange as blocks) w
cross join lateral (
    select count(*) as known,
           coalesce(array_agg(c.block_number order by c.block_number)
                    filter (where c.block_timestamp <@ %(times)s::tstzmultirange), '{}') as numbers,
           coalesce(string_agg(c.block_hash, '' order by c.block_number)
                    filter (where c.block_timestamp <@ %(times)s::tstzmultirange), '') as hashes
    from hot.chain c
    where %(with_hashes)s and c.org_id = d.org_id and c.chain_id = d.chain_id
      and c.block_number >= lower(w.blocks) and c.block_number < upper(w.blocks) and c.block_number <@ w.blocks) c
where s.dataset_uuid = %(dataset_uuid)s;

-- name: hot_blocks
-- Hot rows of blocks within these numbers; if hashes are given, only those with one of them.
select {columns} from hot.blocks r
where r.dataset_uuid = %(dataset_uuid)s and r.block_number between %(first)s and %(last)s
  and r.block_number <@ %(blocks)s::int8multirange
  and (%(block_hash)s::bytea[] is null or r.block_hash = any(%(block_hash)s::bytea[]))
order by r.block_number;

-- name: hot_transactions
-- Hot rows of transactions within these blocks; if hashes are given, only those with one of them.
select {columns} from hot.transactions r
where r.dataset_uuid = %(dataset_uuid)s and r.block_number between %(first)s and %(last)s
  and r.block_number <@ %(blocks)s::int8multirange
  and (%(block_hash)s::bytea[] is null or r.block_hash = any(%(block_hash)s::bytea[]))
  and (%(transaction_hash)s::bytea[] is null or r.transaction_hash = any(%(transaction_hash)s::bytea[]))
order by r.block_number, r.transaction_index;

-- name: hot_logs
-- Hot rows of logs within these blocks; if addresses, topics or hashes are given, only those with one of each.
select {columns} from hot.logs r
where r.dataset_uuid = %(dataset_uuid)s and r.block_number between %(first)s and %(last)s
  and r.block_number <@ %(blocks)s::int8multirange
  and (%(block_hash)s::bytea[] is null or r.block_hash = any(%(block_hash)s::bytea[]))
  and (%(transaction_hash)s::bytea[] is null or r.transaction_hash = any(%(transaction_hash)s::bytea[]))
  and (%(address)s::bytea[] is null or r.address = any(%(address)s::bytea[]))
  and (%(topic0)s::bytea[] is null or r.topic0 = any(%(topic0)s::bytea[]))
order by r.block_number, r.log_index;
