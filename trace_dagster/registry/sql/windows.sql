-- name: compacted_windows
-- Windows of a dataset that compactions wrote, in block order, and whether versions have left their files since.
select lower(y.block_window) as range_start, upper(y.block_window) as range_end,
       coalesce(bool_or(f.masked_blocks <> '{}'), true) as changed
from trace.layouts y left join trace.files f on f.layout_id = y.layout_id
where y.dataset_uuid = %(dataset_uuid)s
group by y.block_window order by y.block_window;

-- name: waiting_windows
-- Windows of a dataset that a compaction holds, or that wait before their next try.
select lower(block_window) as range_start, upper(block_window) as range_end
from trace.compactions
where dataset_uuid = %(dataset_uuid)s and (lease_expires_at >= now() or not_before > now());

-- name: failed_windows
-- Windows of a dataset whose last compaction failed, the latest first.
select lower(block_window) as range_start, upper(block_window) as range_end, failures, error
from trace.compactions c
where c.dataset_uuid = %(dataset_uuid)s and c.failures > 0 and c.error is not null
  and not exists (  -- the blocks may be in another window since: then that one tells how they stand
    select from trace.layouts y
    where y.dataset_uuid = c.dataset_uuid and y.block_window && c.block_window and y.created_at > c.updated_at)
order by c.updated_at desc;

-- name: file_totals
-- Files that hold the visible rows of a dataset: how many there are, how many of them no compaction wrote, and bytes.
select count(*) as files, count(*) filter (where f.layout_id is null) as uncompacted_files,
       coalesce(sum(f.bytes), 0)::bigint as bytes
from trace.files f
where f.file_key in (
    select l.file_key from trace.dataset_versions v
    join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null
    where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = trace.lake_form());

-- name: last_layouts
-- The last layout of each window of a dataset, in block order.
select distinct on (block_window) lower(block_window) as range_start, upper(block_window) as range_end, layout_id,
       manifest_key, row_count, byte_count
from trace.layouts where dataset_uuid = %(dataset_uuid)s
order by block_window, created_at desc;
