-- name: lock_layouts
-- Let one change of a dataset's layouts be decided at a time.
select pg_advisory_xact_lock(hashtextextended('trace:layouts:' || %(dataset_uuid)s::text, 0));

-- name: touching_compactions
-- Compactions of a dataset that have blocks of a window: whether they are held, and whether they are due.
select block_window = int8range(%(range_start)s, %(range_end)s) as same, lower(block_window) as range_start,
       upper(block_window) as range_end, coalesce(lease_expires_at >= now(), false) as held, not_before <= now() as due
from trace.compactions
where dataset_uuid = %(dataset_uuid)s and block_window && int8range(%(range_start)s, %(range_end)s)
order by block_window for update;

-- name: end_lapsed_compactions
-- Fence the lapsed compactions that have blocks of a window: their holders can swap nothing any more.
-- The first is tried again at once, every further one waits longer: memory may run out each time.
with ended as (
    update trace.layout_attempts a set ended_at = c.lease_expires_at
    from trace.compactions c
    where c.dataset_uuid = %(dataset_uuid)s and c.block_window && int8range(%(range_start)s, %(range_end)s)
      and c.lease_expires_at < now() and a.layout_id = c.lease_token)
update trace.compactions
set lease_token = null, lease_expires_at = null, failures = failures + 1, updated_at = now(),
    not_before = lease_expires_at + make_interval(secs => case when failures = 0 then 0
        else least(%(base_seconds)s * 2 ^ least(failures - 1, 20), %(longest_seconds)s) end),
    error = 'its process ended without a word'
where dataset_uuid = %(dataset_uuid)s and block_window && int8range(%(range_start)s, %(range_end)s)
  and lease_expires_at < now();

-- name: start_compaction
-- Lease a window to a new attempt, and record the layout that it may write.
with held as (
    insert into trace.compactions as c (dataset_uuid, block_window, attempt, lease_token, lease_expires_at)
    values (%(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), 1, %(layout_id)s,
            now() + make_interval(secs => %(ttl_seconds)s))
    on conflict (dataset_uuid, block_window) do update
    set attempt = c.attempt + 1, lease_token = excluded.lease_token, lease_expires_at = excluded.lease_expires_at,
        updated_at = now()
    returning c.dataset_uuid, c.block_window)
insert into trace.layout_attempts (layout_id, dataset_uuid, block_window)
select %(layout_id)s, dataset_uuid, block_window from held;

-- name: renew_compaction
-- Renew the lease of a compaction, and record what it has written.
with renewed as (
    update trace.compactions
    set lease_expires_at = now() + make_interval(secs => %(ttl_seconds)s), updated_at = now()
    where dataset_uuid = %(dataset_uuid)s and block_window = int8range(%(range_start)s, %(range_end)s)
      and lease_token = %(layout_id)s
    returning lease_token)
update trace.layout_attempts a set written_bytes = greatest(a.written_bytes, %(written_bytes)s)
from renewed r where a.layout_id = r.lease_token;

-- name: fence_compaction
-- Lock the holder's right to swap until the transaction ends.
select attempt from trace.compactions
where dataset_uuid = %(dataset_uuid)s and block_window = int8range(%(range_start)s, %(range_end)s)
  and lease_token = %(layout_id)s for update;

-- name: end_compaction
-- End an attempt. An error delays the next one, longer with each failure; without one it may be delayed as well.
with ended as (
    update trace.compactions
    set lease_token = null, lease_expires_at = null, error = %(error)s, updated_at = now(),
        failures = case when %(error)s::text is null then 0 else failures + 1 end,
        not_before = now() + make_interval(secs => case when %(error)s::text is null then %(pause_seconds)s
            else least(%(base_seconds)s * 2 ^ least(failures, 20), %(longest_seconds)s) end)
    where dataset_uuid = %(dataset_uuid)s and block_window = int8range(%(range_start)s, %(range_end)s)
      and lease_token = %(layout_id)s
    returning dataset_uuid)
update trace.layout_attempts a set ended_at = now(), written_bytes = greatest(a.written_bytes, %(written_bytes)s)
from ended where a.layout_id = %(layout_id)s;

-- name: written_bytes
-- Bytes that commits and compactions of a dataset have written. A running compaction counts what it plans.
select (select coalesce(sum(byte_count), 0)::bigint from trace.dataset_versions
        where dataset_uuid = %(dataset_uuid)s) as committed,
       (select coalesce(sum(case when ended_at is null then greatest(planned_bytes, written_bytes) else written_bytes end),
                        0)::bigint
        from trace.layout_attempts where dataset_uuid = %(dataset_uuid)s) as compacted;

-- name: plan_compaction
-- Record the bytes that an attempt is going to write.
update trace.layout_attempts set planned_bytes = %(planned_bytes)s where layout_id = %(layout_id)s;

-- name: window_states
-- What windows of a dataset hold, and how their compactions stand.
with asked as (
    select int8range(s, e) as block_window from unnest(%(starts)s::bigint[], %(ends)s::bigint[]) as w (s, e)),
covered as (
    select coalesce(range_agg(r), '{}') as blocks
    from trace.visible_totals t, unnest(t.blocks) as r where t.dataset_uuid = %(dataset_uuid)s),
held as (  -- by the indexes, version by version: the cost grows with the windows that are asked for, not with the lake
    select a.block_window, v.dataset_version, v.block_range, f.file_key, f.layout_id, f.bytes, f.masked_blocks
    from asked a
    cross join lateral (
        select dataset_version, block_range from trace.dataset_versions
        where dataset_uuid = %(dataset_uuid)s and visible and form = %(form)s
          and lower(block_range) >= lower(a.block_window) and lower(block_range) < upper(a.block_window)
           and upper(block_range) <= upper(a.block_window) offset 0) v
    left join lateral (
        select file_key, layout_id, bytes, masked_blocks
        from trace.version_files l join trace.files using (file_key)
        where l.dataset_version = v.dataset_version and l.replaced_at is null offset 0) f on true),
versions as (
    select block_window, count(distinct dataset_version) as versions,
           count(distinct dataset_version) filter (where layout_id is null) as uncompacted
    from held group by block_window),
files as (
    select block_window, count(*) as files, count(*) filter (where layout_id is null) as uncompacted_files,
           coalesce(sum(bytes), 0)::bigint as bytes,
           coalesce(sum(bytes) filter (where layout_id is null), 0)::bigint as uncompacted_bytes,
           coalesce(sum(masked), 0)::bigint as masked_blocks,
           coalesce(sum(bytes * masked / nullif(masked + live, 0)), 0)::bigint as masked_bytes
    from (select h.block_window, h.file_key, h.layout_id, h.bytes,
                 (select coalesce(sum(upper(m) - lower(m)), 0) from unnest(h.masked_blocks) as m) as masked,
                 sum(upper(h.block_range) - lower(h.block_range)) as live
          from held h where h.file_key is not null
          group by h.block_window, h.file_key, h.layout_id, h.bytes, h.masked_blocks) each
    group by block_window)
select lower(a.block_window) as range_start, upper(a.block_window) as range_end,
       covered.blocks @> a.block_window as whole, coalesce(v.versions, 0) as versions,
       coalesce(v.uncompacted, 0) as uncompacted, coalesce(f.files, 0) as files,
       coalesce(f.uncompacted_files, 0) as uncompacted_files, coalesce(f.bytes, 0) as bytes,
       coalesce(f.uncompacted_bytes, 0) as uncompacted_bytes, coalesce(f.masked_blocks, 0) as masked_blocks,
       coalesce(f.masked_bytes, 0) as masked_bytes,
       coalesce(c.lease_expires_at >= now(), false) as held, coalesce(c.not_before <= now(), true) as due,
       coalesce(c.failures, 0) as failures, c.error
from asked a
cross join covered
left join versions v on v.block_window = a.block_window
left join files f on f.block_window = a.block_window
left join trace.compactions c on c.dataset_uuid = %(dataset_uuid)s and c.block_window = a.block_window
order by 1;

-- name: holes_of_window
-- Blocks of a window that are not committed.
select lower(hole) as range_start, upper(hole) as range_end
from (select int8multirange(int8range(%(range_start)s, %(range_end)s)) - coalesce(range_agg(r), '{}') as missing
      from trace.visible_totals t, unnest(t.blocks) as r where t.dataset_uuid = %(dataset_uuid)s) all_holes,
     unnest(missing) as hole
order by 1;

-- name: versions_of_window
-- Visible versions that lie wholly in a window, in block order, with the files that hold their rows.
select v.dataset_version, lower(v.block_range) as range_start, upper(v.block_range) as range_end, v.generation,
       v.row_count, v.content_digest, v.schema_json,
       (select jsonb_agg(jsonb_build_object(
                   'key', f.file_key, 'bytes', f.bytes, 'layout_id', f.layout_id,
                   'masked_blocks', (select coalesce(sum(upper(m) - lower(m)), 0) from unnest(f.masked_blocks) as m))
               order by coalesce(substring(f.file_key from '-p([0-9]+)\.parquet$')::int, 0))
        from trace.version_files l join trace.files f on f.file_key = l.file_key
        where l.dataset_version = v.dataset_version and l.replaced_at is null) as files
from trace.dataset_versions v
where v.dataset_uuid = %(dataset_uuid)s and v.visible and v.form = %(form)s
  and lower(v.block_range) >= %(range_start)s and lower(v.block_range) < %(range_end)s
  and upper(v.block_range) <= %(range_end)s
order by lower(v.block_range);

-- name: lock_versions
-- Keep versions as they are until the transaction ends, and say which are visible.
select dataset_version, visible from trace.dataset_versions
where dataset_version = any(%(versions)s) order by dataset_version for share;

-- name: insert_layout
-- Register a layout.
insert into trace.layouts (layout_id, dataset_uuid, block_window, manifest_key, manifest_sha256, row_count, byte_count)
values (%(layout_id)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(manifest_key)s,
        %(manifest_sha256)s, %(row_count)s, %(byte_count)s);

-- name: replace_links
-- Mark the links of versions to their files as replaced.
update trace.version_files set replaced_at = now()
where dataset_version = any(%(versions)s) and replaced_at is null
returning dataset_version, file_key;

-- name: mask_moved_versions
-- Mask versions that moved in the layout's files which they left, because these may hold other versions.
update trace.files f set masked_blocks = f.masked_blocks + moved.blocks
from (select l.file_key, range_agg(v.block_range) as blocks
      from trace.version_files l join trace.dataset_versions v on v.dataset_version = l.dataset_version
      where l.dataset_version = any(%(versions)s) and l.replaced_at = now() group by l.file_key) moved
where f.file_key = moved.file_key and f.layout_id is not null;

-- name: insert_layout_file
-- Register a file of a layout and link the visible versions to it. The hidden ones are masked from the start.
with filed as (
    insert into trace.files (file_key, bytes, sha256, row_count, min_block, max_block, etag, layout_id, masked_blocks)
    values (%(file_key)s, %(bytes)s, %(sha256)s, %(row_count)s, %(min_block)s, %(max_block)s, %(etag)s, %(layout_id)s,
            (select coalesce(range_agg(block_range), '{}') from trace.dataset_versions
             where dataset_version = any(%(hidden)s)))
    returning file_key)
insert into trace.version_files (dataset_version, file_key)
select version, file_key from filed, unnest(%(visible)s::uuid[]) as version;

-- name: layout_of_attempt
-- Whether a layout was committed, to settle an unknown outcome.
select layout_id from trace.layouts where layout_id = %(layout_id)s;

-- name: insert_file_summary
-- Store the approximate set of a column's values in a file.
insert into trace.file_summaries (file_key, column_name, hashes, summary)
values (%(file_key)s, %(column_name)s, %(hashes)s, %(summary)s);

-- name: insert_hash_index
-- Register the hash index of a layout.
insert into trace.hash_indexes (layout_id, object_key, bytes, sha256, row_count, etag)
values (%(layout_id)s, %(object_key)s, %(bytes)s, %(sha256)s, %(row_count)s, %(etag)s);

-- name: forget_hash_index
-- Forget a damaged hash index: queries scan the files of its layout then. The sweep removes the object.
delete from trace.hash_indexes where layout_id = %(layout_id)s;

-- name: silent_compactions
-- Number of compactions that a sweep would fence.
select count(*) as n from trace.compactions
where lease_expires_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: abandon_compactions
-- Fence compactions that were silent for the grace period.
with silent as (
    select dataset_uuid, block_window, lease_token, lease_expires_at from trace.compactions
    where lease_expires_at < now() - make_interval(secs => %(grace_seconds)s)
    for update skip locked),
ended as (
    update trace.layout_attempts a set ended_at = s.lease_expires_at from silent s where a.layout_id = s.lease_token)
update trace.compactions c
set lease_token = null, lease_expires_at = null, failures = c.failures + 1, updated_at = now(),
    error = 'its process ended without a word'
from silent s where c.dataset_uuid = s.dataset_uuid and c.block_window = s.block_window;

-- name: replaced_links
-- Number of links that a sweep would drop, besides those of the versions that it retires.
with kept as (
    select least(now() - make_interval(secs => %(grace_seconds)s), min(started_at) - interval '10 minutes') as since
    from trace.query_log where ended_at is null and deadline_at > now())
select count(*) as n
from trace.version_files l join trace.dataset_versions v on v.dataset_version = l.dataset_version
where l.replaced_at < now() - make_interval(secs => %(grace_seconds)s)  -- it follows, and the planner knows it
  and l.replaced_at < (select since from kept)
  and not (not v.visible and v.hidden_at < (select since from kept));

-- name: drop_replaced_links
-- Drop links that a compaction replaced longer ago than the grace period.
with kept as (
    select least(now() - make_interval(secs => %(grace_seconds)s), min(started_at) - interval '10 minutes') as since
    from trace.query_log where ended_at is null and deadline_at > now()),
dropped as (
    delete from trace.version_files where replaced_at < (select since from kept)
    returning file_key)
select count(*) as n, coalesce(array_agg(distinct file_key), '{}') as file_keys from dropped;

-- name: drop_unlinked_layout_files
-- Delete the rows of layouts' files that no version links.
delete from trace.files f
where f.layout_id is not null and not exists (select 1 from trace.version_files l where l.file_key = f.file_key);

-- name: drop_unused_hash_indexes
-- Delete the rows of hash indexes of layouts without files.
delete from trace.hash_indexes h
where not exists (select 1 from trace.files f where f.layout_id = h.layout_id);

-- name: lock_compaction
-- Lock a window, so that nobody compacts it while its objects are removed.
select lease_token from trace.compactions
where dataset_uuid = %(dataset_uuid)s and block_window = int8range(%(range_start)s, %(range_end)s) for update;

-- name: known_layouts
-- Layouts of a window that this registry knows, and whether their compaction was over before the grace period.
select a.layout_id,
       coalesce(a.ended_at, c.lease_expires_at, a.started_at) < now() - make_interval(secs => %(grace_seconds)s) as over
from trace.layout_attempts a
left join trace.compactions c on c.lease_token = a.layout_id
where a.dataset_uuid = %(dataset_uuid)s and lower(a.block_window) = %(range_start)s
  and a.block_window = int8range(%(range_start)s, %(range_end)s);

-- name: referenced_layout_objects
-- Objects of a window's layouts that a reader may still read.
with kept as (
    select least(now() - make_interval(secs => %(grace_seconds)s), min(started_at) - interval '10 minutes') as since
    from trace.query_log where ended_at is null and deadline_at > now()),
live as (
    select f.file_key, f.layout_id
    from trace.layouts y join trace.files f on f.layout_id = y.layout_id
    where y.dataset_uuid = %(dataset_uuid)s and lower(y.block_window) = %(range_start)s
      and y.block_window = int8range(%(range_start)s, %(range_end)s)
      and (  -- for each file alone: as a join it would read every link
        select true from trace.version_files l join trace.dataset_versions v on v.dataset_version = l.dataset_version
        where l.file_key = f.file_key
          and (l.replaced_at is null or l.replaced_at >= (select since from kept))
          and v.swept_at is null
          and (v.visible or v.hidden_at >= (select since from kept))
        limit 1))
select file_key as object_key from live
union all
select manifest_key from trace.layouts where layout_id in (select layout_id from live)
union all
select object_key from trace.hash_indexes where layout_id in (select layout_id from live);
