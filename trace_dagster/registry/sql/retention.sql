-- name: queries_that_keep_files
-- Number of running queries that began before the grace period: files that were replaced since then are kept for them.
-- The ten minutes, here and below, are more than a transaction takes that replaces files: its time is that of its begin.
select count(*) as n from trace.query_log
where ended_at is null and deadline_at > now()
  and started_at - interval '10 minutes' < now() - make_interval(secs => %(grace_seconds)s);

-- name: abandon_attempts
-- Fence attempts that were silent for the grace period: they lose their token, whatever they still write.
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
-- Number of attempts that a sweep would fence.
select count(*) as n from trace.tasks
where state = 'running' and lease_expires_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: replaced_versions
-- Number of replaced versions that a sweep would retire.
with kept as (
    select least(now() - make_interval(secs => %(grace_seconds)s), min(started_at) - interval '10 minutes') as since
    from trace.query_log where ended_at is null and deadline_at > now())
select count(*) as n from trace.dataset_versions
where not visible and swept_at is null and hidden_at < (select since from kept);

-- name: retire_versions
-- Retire versions that were replaced longer ago than the grace period, and unlink their files.
with kept as (
    select least(now() - make_interval(secs => %(grace_seconds)s), min(started_at) - interval '10 minutes') as since
    from trace.query_log where ended_at is null and deadline_at > now()),
retired as (
    update trace.dataset_versions set swept_at = now()
    where not visible and swept_at is null and hidden_at < (select since from kept)
    returning dataset_version),
unlinked as (
    delete from trace.version_files l using retired r where l.dataset_version = r.dataset_version
    returning l.file_key)
select (select count(*) from retired) as n, array(select file_key from unlinked) as file_keys;

-- name: drop_unlinked_files
-- Delete the rows of files that no version links any more.
delete from trace.files f
where f.file_key = any(%(file_keys)s)
  and not exists (select 1 from trace.version_files l where l.file_key = f.file_key);

-- name: known_datasets
-- Every dataset of this registry.
select dataset_uuid from trace.datasets;

-- name: tasks_of_range
-- Lock the tasks of a range, so that no claim succeeds while its objects are removed. A dry run ignores what it would fence.
select task_id, state = 'running' and not (
           %(dry_run)s and lease_expires_at < now() - make_interval(secs => %(grace_seconds)s)) as held
from trace.tasks
where dataset_uuid = %(dataset_uuid)s and lower(block_range) = %(range_start)s and block_range = int8range(%(range_start)s, %(range_end)s)
for update;

-- name: retired_manifests
-- Manifests of versions that were replaced: no attempt writes into their folders again.
with kept as (
    select least(now() - make_interval(secs => %(grace_seconds)s), min(started_at) - interval '10 minutes') as since
    from trace.query_log where ended_at is null and deadline_at > now())
select manifest_key from trace.dataset_versions
where dataset_uuid = %(dataset_uuid)s and lower(block_range) = %(range_start)s and block_range = int8range(%(range_start)s, %(range_end)s)
  and not visible and hidden_at < (select since from kept);

-- name: ended_attempts
-- Attempts of a range that ended before the grace period.
select t.task_id, a.attempt, a.lease_token
from trace.attempts a join trace.tasks t on t.task_id = a.task_id
where t.dataset_uuid = %(dataset_uuid)s and lower(t.block_range) = %(range_start)s and t.block_range = int8range(%(range_start)s, %(range_end)s)
  and coalesce(a.ended_at, t.lease_expires_at) < now() - make_interval(secs => %(grace_seconds)s);

-- name: referenced_objects
-- Objects of a range that a reader may still read: files and manifests of versions not replaced long ago.
with kept as (
    select least(now() - make_interval(secs => %(grace_seconds)s), min(started_at) - interval '10 minutes') as since
    from trace.query_log where ended_at is null and deadline_at > now()),
live as (
    select dataset_version, manifest_key from trace.dataset_versions
    where dataset_uuid = %(dataset_uuid)s and lower(block_range) = %(range_start)s and block_range = int8range(%(range_start)s, %(range_end)s)
      and swept_at is null
      and (visible or hidden_at >= (select since from kept)))
select l.file_key as object_key from live v join trace.version_files l on l.dataset_version = v.dataset_version
where l.replaced_at is null or l.replaced_at >= (select since from kept)
union all
select manifest_key from live;

-- name: delete_old_attempts
-- Delete ended attempts, later than their objects, which need the row. The task keeps the attempt number.
delete from trace.attempts a
where a.state in ('failed', 'expired') and a.ended_at < now() - make_interval(secs => 2 * %(grace_seconds)s + 3600)
  and exists (select 1 from trace.tasks t where t.task_id = a.task_id and t.state in ('committed', 'superseded'));

-- name: delete_old_outbox
-- Delete wake-ups that were sent before the grace period.
delete from trace.outbox
where kind = 'task_wakeup' and sent_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: delete_old_dead
-- Delete dead messages older than the grace period.
delete from trace.queue_dead where died_at < now() - make_interval(secs => %(grace_seconds)s);

-- name: delete_old_batches
-- Delete closed batches that no task names.
delete from trace.batches b
where b.closed_at < now() - make_interval(secs => %(grace_seconds)s)
  and not exists (select 1 from trace.tasks t where t.batch_id = b.batch_id);
