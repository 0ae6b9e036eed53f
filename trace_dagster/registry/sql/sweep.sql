-- name: abandon_attempts
-- Fence first: a holder that has been silent this long loses its token, whatever it still writes.
with silent as (
    select task_id from trace.tasks
    where state = 'running' and lease_expires_at < now() - make_interval(secs => %(grace_seconds)s)
    for update skip locked),
fenced as (
    update trace.tasks t
    set state = 'queued', lease_token = null, lease_expires_at = null, batch_id = null, expiries = t.expiries + 1,
        not_before = now(), updated_at = now()
    from silent where t.task_id = silent.task_id
    returning t.task_id, t.attempt)
update trace.attempts a set state = 'expired', ended_at = a.heartbeat_at, error = 'its holder fell silent'
from fenced f where a.task_id = f.task_id and a.attempt = f.attempt and a.state = 'running'
returning a.task_id;

-- name: silent_attempts
select count(*) as n from trace.tasks
where state = 'running' and lease_expires_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: replaced_versions
select count(*) as n from trace.dataset_versions
where not visible and swept_at is null and hidden_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: retire_versions
with retired as (
    update trace.dataset_versions set swept_at = now()
    where not visible and swept_at is null and hidden_at < now() - make_interval(secs => %(grace_seconds)s)
    returning dataset_version),
unlinked as (
    delete from trace.version_files l using retired r where l.dataset_version = r.dataset_version
    returning l.file_key)
select (select count(*) from retired) as n, array(select file_key from unlinked) as file_keys;

-- name: drop_unlinked_files
delete from trace.files f
where f.file_key = any(%(file_keys)s)
  and not exists (select 1 from trace.version_files l where l.file_key = f.file_key);

-- name: known_datasets
select dataset_uuid from trace.datasets;

-- name: tasks_of_range
-- Locked: nobody claims a range while objects below it are removed. A dry run looks past what it would fence.
select task_id, state = 'running' and not (
           %(dry_run)s and lease_expires_at < now() - make_interval(secs => %(grace_seconds)s)) as held
from trace.tasks
where dataset_uuid = %(dataset_uuid)s and lower(block_range) = %(range_start)s and block_range = int8range(%(range_start)s, %(range_end)s)
for update;

-- name: retired_manifests
-- Of versions that were replaced: nobody writes into their folders again.
select manifest_key from trace.dataset_versions
where dataset_uuid = %(dataset_uuid)s and lower(block_range) = %(range_start)s and block_range = int8range(%(range_start)s, %(range_end)s)
  and not visible and hidden_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: ended_attempts
select t.task_id, a.attempt, a.lease_token
from trace.attempts a join trace.tasks t on t.task_id = a.task_id
where t.dataset_uuid = %(dataset_uuid)s and lower(t.block_range) = %(range_start)s and t.block_range = int8range(%(range_start)s, %(range_end)s)
  and coalesce(a.ended_at, t.lease_expires_at) < now() - make_interval(secs => %(grace_seconds)s);

-- name: referenced_objects
-- What a reader may still read below one range: files and manifests of versions not replaced long ago.
with live as (
    select dataset_version, manifest_key from trace.dataset_versions
    where dataset_uuid = %(dataset_uuid)s and lower(block_range) = %(range_start)s and block_range = int8range(%(range_start)s, %(range_end)s)
      and swept_at is null
      and (visible or hidden_at >= now() - make_interval(secs => %(grace_seconds)s)))
select l.file_key as object_key from live v join trace.version_files l on l.dataset_version = v.dataset_version
union all
select manifest_key from live;

-- name: delete_old_attempts
-- Attempt numbers never go back: the counter stands in the task. Later than their objects, which need the row.
delete from trace.attempts a
where a.state in ('failed', 'expired') and a.ended_at < now() - make_interval(secs => 2 * %(grace_seconds)s + 3600)
  and exists (select 1 from trace.tasks t where t.task_id = a.task_id and t.state in ('committed', 'superseded'));

-- name: delete_old_outbox
delete from trace.outbox
where kind = 'task_wakeup' and sent_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: delete_old_dead
delete from trace.queue_dead where died_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: delete_old_batches
delete from trace.batches b
where b.closed_at < now() - make_interval(secs => %(grace_seconds)s)
  and not exists (select 1 from trace.tasks t where t.batch_id = b.batch_id);
