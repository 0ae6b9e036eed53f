-- name: insert_change
-- Append a change to the log, in the transaction that makes it.
insert into trace.changes (kind, dataset_uuid, block_range, generation, dataset_version, layout_id, reason,
                           block_hash)
values (%(kind)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(generation)s, %(dataset_version)s,
        %(layout_id)s, %(reason)s, %(block_hash)s);

-- name: changes_after
-- Changes after a cursor, in their order, up to the lowest transaction that is still open.
select c.xid::text as xid, c.change_id, c.kind, c.dataset_uuid, d.chain_id, d.dataset_key,
       lower(c.block_range) as range_start, upper(c.block_range) as range_end, c.generation, c.dataset_version,
       c.layout_id, c.reason, c.changed_at, c.block_hash
from trace.changes c join trace.datasets d on d.dataset_uuid = c.dataset_uuid
where (c.xid, c.change_id) > (%(xid)s::text::xid8, %(change_id)s::bigint)
  and c.xid < pg_snapshot_xmin(pg_current_snapshot())
order by c.xid, c.change_id limit %(limit)s;

-- name: last_change
-- The last change before the lowest transaction that is still open.
select xid::text as xid, change_id, changed_at from trace.changes
where xid < pg_snapshot_xmin(pg_current_snapshot()) order by trace.changes.xid desc, change_id desc limit 1;

-- name: changes_floor
-- The last change that was deleted because of its age.
select xid::text as xid, change_id from trace.changes_floor;

-- name: change_of_cursor
-- When the change of a cursor was made, and whether it lies before the last one that was deleted.
select (select changed_at from trace.changes
        where xid = %(xid)s::text::xid8 and change_id = %(change_id)s) as changed_at,
       (%(xid)s::text::xid8, %(change_id)s::bigint) < (f.xid, f.change_id) as is_deleted,
       (%(xid)s::text::xid8, %(change_id)s::bigint) = (f.xid, f.change_id) as is_floor
from trace.changes_floor f;

-- name: foreign_changes
-- Whether the log has transactions that this server did not reach yet: a dump of another server was restored.
select exists (select 1 from trace.changes where xid >= pg_snapshot_xmax(pg_current_snapshot()))
       or exists (select 1 from trace.changes_floor where xid >= pg_snapshot_xmax(pg_current_snapshot())) as is_foreign;

-- name: restart_changes
-- Empty the log. Earlier cursors are refused from then on, because their changes do not exist.
with emptied as (delete from trace.changes)
update trace.changes_floor set xid = '0', change_id = 0;

-- name: lock_changes_floor
-- Serialize the deletion of old changes.
select xid from trace.changes_floor for update;

-- name: delete_old_changes
-- Delete some of the oldest changes, in their order up to the first that is kept, and remember the last one.
with first as (
    select xid, change_id, changed_at < now() - make_interval(days => %(days)s) as is_old
    from trace.changes where xid < pg_snapshot_xmin(pg_current_snapshot())
    order by xid, change_id limit %(limit)s),
old as (
    select xid, change_id
    from (select xid, change_id, bool_and(is_old) over (order by xid, change_id) as is_old from first) marked
    where is_old),
deleted as (
    delete from trace.changes c using old where c.xid = old.xid and c.change_id = old.change_id
    returning c.xid, c.change_id),
last as (select xid, change_id from deleted order by xid desc, change_id desc limit 1),
moved as (update trace.changes_floor f set xid = last.xid, change_id = last.change_id from last)
select count(*) as n from deleted;

-- name: old_changes
-- Number of changes that a sweep would delete.
select count(*) filter (where is_old) as n
from (select bool_and(changed_at < now() - make_interval(days => %(days)s)) over (order by xid, change_id) as is_old
      from trace.changes where xid < pg_snapshot_xmin(pg_current_snapshot())) marked;

-- name: delete_old_reorgs
-- Delete old reorganisations; the newest of each chain stays, because status shows it.
delete from hot.reorgs r
where r.found_at < now() - make_interval(days => %(days)s)
  and exists (select 1 from hot.reorgs newer
              where newer.org_id = r.org_id and newer.chain_id = r.chain_id and newer.reorg_id > r.reorg_id);
