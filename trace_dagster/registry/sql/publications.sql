-- name: visible_version
-- The visible version of exactly one range.
select v.*, lower(v.block_range) as range_start, upper(v.block_range) as range_end
from trace.dataset_versions v
where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = trace.lake_form()
  and lower(v.block_range) = %(range_start)s and v.block_range = int8range(%(range_start)s, %(range_end)s);

-- name: version_of_attempt
-- The version that an attempt committed, to settle an unknown outcome.
select dataset_version, generation, storage_ref, content_digest, manifest_sha256 from trace.dataset_versions
where task_id = %(task_id)s and attempt = %(attempt)s;

-- name: hide_versions
-- Hide what a new version replaces: the same range of a stream, everything of a derived dataset.
update trace.dataset_versions set visible = false, hidden_at = now()
where dataset_uuid = %(dataset_uuid)s and visible
  and (%(whole)s or (lower(block_range) = %(range_start)s and block_range = int8range(%(range_start)s, %(range_end)s)))
returning dataset_version, generation, lower(block_range) as range_start, upper(block_range) as range_end,
          last_block_hash;

-- name: insert_version
-- Register a dataset version.
insert into trace.dataset_versions (
    dataset_version, dataset_uuid, block_range, generation, task_id, attempt, config_hash, storage_ref,
    manifest_key, manifest_sha256, content_digest, row_count, byte_count, schema_json, verification, metrics, form,
    first_parent_hash, last_block_hash, first_time, last_time)
values (
    %(dataset_version)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(generation)s, %(task_id)s,
    %(attempt)s, %(config_hash)s, %(storage_ref)s, %(manifest_key)s, %(manifest_sha256)s, %(content_digest)s,
    %(row_count)s, %(byte_count)s, %(schema_json)s, %(verification)s, %(metrics)s, trace.lake_form(),
    %(first_parent_hash)s, %(last_block_hash)s, %(first_time)s, %(last_time)s);

-- name: insert_file
-- Register a file and link it to its version.
with filed as (
    insert into trace.files (file_key, bytes, sha256, row_count, min_block, max_block, etag)
    values (%(file_key)s, %(bytes)s, %(sha256)s, %(row_count)s, %(min_block)s, %(max_block)s, %(etag)s)
    returning file_key)
insert into trace.version_files (dataset_version, file_key) select %(dataset_version)s, file_key from filed;

-- name: files_of_version
-- The files that hold a version's rows now, in the order of its rows.
select f.file_key, f.sha256, f.layout_id is not null as in_layout
from trace.version_files l join trace.files f on f.file_key = l.file_key
where l.dataset_version = %(dataset_version)s and l.replaced_at is null
order by coalesce(substring(l.file_key from '-p([0-9]+)\.parquet$')::int, 0);

-- name: visible_datasets
-- Everything that a query can name: one row per dataset, streams and derived datasets alike.
select d.dataset_uuid, d.chain_id, d.dataset_key, d.kind, d.source, d.created_at, done.*,
       (select v.schema_json from trace.dataset_versions v where v.dataset_uuid = d.dataset_uuid and v.visible
        and v.form = trace.lake_form()
        order by v.committed_at desc limit 1) as schema_json,
       s.columns
from trace.datasets d
left join trace.streams s on s.dataset_uuid = d.dataset_uuid
cross join lateral (
    select coalesce(sum(v.ranges), 0)::bigint as ranges, coalesce(sum(v.row_count), 0)::bigint as row_count,
           coalesce(sum(v.byte_count), 0)::bigint as byte_count
    from trace.visible_totals v where v.dataset_uuid = d.dataset_uuid) done
where d.org_id = %(org_id)s
order by d.chain_id, d.kind desc, d.dataset_key, d.created_at;

-- name: visible_files
-- Files with visible rows of a range of a dataset, in block order, and the blocks to leave out of each.
select f.file_key, f.masked_blocks, f.min_block, f.max_block
from trace.dataset_versions v
join trace.version_files l on l.dataset_version = v.dataset_version and l.replaced_at is null
join trace.files f on f.file_key = l.file_key
where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = trace.lake_form()
  and v.block_range && int8range(%(range_start)s, %(range_end)s)
group by f.file_key
order by min(lower(v.block_range)), f.file_key;

-- name: committed_files
-- Size and ETag of files and hash indexes by their keys.
select file_key, bytes, etag from trace.files where file_key = any(%(file_keys)s)
union all
select object_key, bytes, etag from trace.hash_indexes where object_key = any(%(file_keys)s);

-- name: origins_of_files
-- The dataset of files and hash indexes, the blocks that they serve now (or served), and the job that can repair them.
with asked as (
    select file_key, file_key as object_key from trace.files where file_key = any(%(file_keys)s)
    union all
    select f.file_key, h.object_key from trace.hash_indexes h join trace.files f on f.layout_id = h.layout_id
    where h.object_key = any(%(file_keys)s))
select a.object_key as file_key, d.chain_id, d.dataset_key, j.name as job,
       coalesce(min(lower(v.block_range)) filter (where v.visible and l.replaced_at is null), min(lower(v.block_range)))
           as range_start,
       coalesce(max(upper(v.block_range)) filter (where v.visible and l.replaced_at is null), max(upper(v.block_range)))
           as range_end
from asked a
join trace.version_files l on l.file_key = a.file_key
join trace.dataset_versions v on v.dataset_version = l.dataset_version
join trace.datasets d on d.dataset_uuid = v.dataset_uuid
left join trace.streams s on s.dataset_uuid = d.dataset_uuid
left join trace.jobs j on j.job_id = s.job_id
group by a.object_key, d.dataset_uuid, j.name
order by d.chain_id, d.dataset_key, 5, a.object_key;

-- name: covered_ranges
-- Committed blocks of a dataset, merged.
select lower(r) as range_start, upper(r) as range_end
from (select unnest(range_agg(blocks)) as r from trace.visible_totals where dataset_uuid = %(dataset_uuid)s) merged
order by 1;
