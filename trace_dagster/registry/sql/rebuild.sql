-- name: old_form_streams
-- Streams whose rows are stored in another form than the present one, by job and dataset key.
select j.name as job_name, d.dataset_key, s.form, s.enabled
from trace.streams s
join trace.datasets d on d.dataset_uuid = s.dataset_uuid
join trace.jobs j on j.job_id = s.job_id
where s.form <> trace.lake_form()
order by j.name, d.dataset_key;

-- name: old_form_derived
-- Derived datasets whose visible rows are stored in another form than the present one.
select d.chain_id, d.dataset_key, v.form
from trace.datasets d join trace.dataset_versions v on v.dataset_uuid = d.dataset_uuid
where d.kind = 'derived' and v.visible and v.form <> trace.lake_form()
order by 1, 2;

-- name: requeue_outdated
-- Queue the tasks of a stream whose rows have, or would get, another configuration or form, and fence their attempts.
-- Superseded tasks stay so, and get the configuration that they have if they are planned again.
with locked as (
    select t.task_id, t.state from trace.tasks t
    where t.dataset_uuid = %(dataset_uuid)s
      and (t.config_hash <> %(config_hash)s
           or t.state = 'committed' and not exists (
               select 1 from trace.dataset_versions v
               where v.dataset_uuid = t.dataset_uuid and v.visible and lower(v.block_range) = lower(t.block_range)
                 and v.block_range = t.block_range and v.config_hash = %(config_hash)s and v.form = trace.lake_form()))
    order by t.task_id for update of t),
ended as (
    update trace.attempts a set state = 'expired', ended_at = now(), error = 'its stream was rebuilt meanwhile'
    from locked l where l.state = 'running' and a.task_id = l.task_id and a.state = 'running')
update trace.tasks t
set config_hash = %(config_hash)s, state = case l.state when 'superseded' then 'superseded' else 'queued' end,
    lease_token = null, lease_expires_at = null, batch_id = null, failures = 0, expiries = 0, not_before = now(),
    error = null, updated_at = now()
from locked l where t.task_id = l.task_id;

-- name: lock_outdated
-- Lock a stream's visible versions of another configuration or form, in the order in which a swap of layouts does.
-- The statement that hides them does not wait any more: a change comes after those that its statement could see.
select dataset_version from trace.dataset_versions
where dataset_uuid = %(dataset_uuid)s and visible
  and (config_hash <> %(config_hash)s or form <> trace.lake_form())
order by dataset_version for update;

-- name: hide_outdated
-- Hide the versions of a stream that have another configuration or form, and tell each as invalidated.
with hidden as (
    update trace.dataset_versions set visible = false, hidden_at = now()
    where dataset_uuid = %(dataset_uuid)s and visible
      and (config_hash <> %(config_hash)s or form <> trace.lake_form())
    returning dataset_version, dataset_uuid, block_range, generation),
told as (
    insert into trace.changes (kind, dataset_uuid, block_range, generation, dataset_version, reason)
    select 'invalidated', dataset_uuid, block_range, generation, dataset_version, %(reason)s
    from hidden order by lower(block_range))
select count(*) as n from hidden;
