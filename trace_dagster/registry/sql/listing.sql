-- name: details_of_datasets
-- What else is known of datasets: the blocks that a job wants, levels, the last commit, and how old the last block is.
-- The time of the last block is that of its header if it is stored, else that of the last committed row.
select d.dataset_uuid, s.from_block, s.to_block, found.levels, found.committed_at, newest.time as last_time,
       extract(epoch from clock_timestamp() - newest.time)::float8 as age_seconds
from unnest(%(dataset_uuids)s::uuid[], %(last_blocks)s::bigint[]) as asked (dataset_uuid, last_block)
join trace.datasets d on d.dataset_uuid = asked.dataset_uuid
left join trace.streams s on s.dataset_uuid = d.dataset_uuid
cross join lateral (
    select coalesce((select jsonb_object_agg(t.level, t.ranges) from trace.visible_totals t
                     where t.dataset_uuid = d.dataset_uuid and t.ranges > 0), '{}') as levels,
           (select max(v.committed_at) from trace.dataset_versions v where v.dataset_uuid = d.dataset_uuid)
               as committed_at
) found
cross join lateral (
    select coalesce(
        (select c.block_timestamp from hot.chain c
         where c.org_id = d.org_id and c.chain_id = d.chain_id and c.block_number = asked.last_block),
        -- of a sparse dataset many of the newest ranges may have no row
        (select max(v.last_time)
         from (select last_time from trace.dataset_versions
               where dataset_uuid = d.dataset_uuid and visible and form = trace.lake_form()
               order by lower(block_range) desc limit 1000) v)) as time
) newest;

-- name: listed_files
-- As visible_files, each as one JSON text with what a reader outside needs to know: 100,000 of them cost little here.
select json_build_object(
           'key', f.file_key, 'uri', %(bucket)s::text || f.file_key, 'first_block', f.min_block, 'last_block', f.max_block,
           'masked', array(select json_build_array(lower(m), upper(m)) from unnest(f.masked_blocks) m),
           'rows', f.row_count, 'bytes', f.bytes, 'etag', f.etag, 'sha256', f.sha256)::text as entry
from trace.dataset_versions v
join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null
join trace.files f on f.file_key = l.file_key
where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = trace.lake_form()
  and v.block_range && int8range(%(range_start)s, %(range_end)s)
group by f.file_key
order by min(lower(v.block_range)), f.file_key;

-- name: read_whole_cursor
-- Plan cursors for all of their rows: Postgres plans for the first tenth of them otherwise.
select set_config('cursor_tuple_fraction', '1', true);

-- name: is_there
-- Nothing but an answer of the server.
select 1 as answer;
