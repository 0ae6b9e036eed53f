-- name: names_of_files
-- Files of versions with rows of these blocks and times, except layouts' files: one text, a key on each line.
select string_agg(l.file_key, chr(10) order by lower(v.block_range), l.file_key) as names
from trace.dataset_versions v
join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null
left join trace.files f on f.file_key = l.file_key and f.layout_id is not null
where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = %(form)s and v.row_count > 0 and f.file_key is null
  and v.block_range && %(span)s::int8range and v.block_range && %(blocks)s::int8multirange
  and (v.first_time is null or tstzrange(v.first_time, v.last_time, '[]') && %(times)s::tstzmultirange);

-- name: names_of_all_files
-- As names_of_files, for every block and time: an index holds all that is read of the versions.
select string_agg(l.file_key, chr(10) order by lower(v.block_range), l.file_key) as names
from trace.dataset_versions v
join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null
left join trace.files f on f.file_key = l.file_key and f.layout_id is not null
where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = %(form)s and v.row_count > 0 and f.file_key is null;

-- name: blocks_of_times
-- Blocks of the visible versions with rows of these times. There is no index by time: one of the versions is read whole.
select coalesce(range_agg(v.block_range), '{}') as blocks
from trace.dataset_versions v
where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = %(form)s and v.row_count > 0
  and (v.first_time is null
       or (v.last_time >= coalesce(lower(%(times)s::tstzmultirange), '-infinity')
           and v.first_time <= coalesce(upper(%(times)s::tstzmultirange), 'infinity')
           and tstzrange(v.first_time, v.last_time, '[]') && %(times)s::tstzmultirange));

-- name: layout_files
-- Files of layouts that hold visible rows of these blocks and times, in block order, with the blocks to leave out.
select f.file_key, f.masked_blocks, f.min_block, f.max_block, h.object_key as index_key
from trace.layouts y
join trace.files f on f.layout_id = y.layout_id
left join trace.hash_indexes h on h.layout_id = y.layout_id
where y.dataset_uuid = %(dataset_uuid)s and y.block_window && %(span)s::int8range
  and (f.min_block is null or int8range(f.min_block, f.max_block, '[]') && %(blocks)s::int8multirange)
  and exists (
    select from trace.version_files l
    join trace.dataset_versions v on v.dataset_version = l.dataset_version
    where l.file_key = f.file_key and l.replaced_at is null
      and v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = %(form)s and v.row_count > 0
      and v.block_range && %(span)s::int8range and v.block_range && %(blocks)s::int8multirange
      and (v.first_time is null or tstzrange(v.first_time, v.last_time, '[]') && %(times)s::tstzmultirange))
order by f.min_block, f.file_key;
