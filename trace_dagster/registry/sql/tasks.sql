-- name: insert_task
insert into trace.tasks (task_id, dataset_uuid, block_range, config_hash)
values (%(task_id)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(config_hash)s)
on conflict (task_id) do update set state = 'queued', batch_id = null, updated_at = now()
where trace.tasks.state = 'superseded';

-- name: insert_task_if_free
-- A range someone asked for by hand: planned now unless any active range touches it.
insert into trace.tasks (task_id, dataset_uuid, block_range, config_hash)
select %(task_id)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(config_hash)s
where not exists (
    select 1 from trace.tasks
    where dataset_uuid = %(dataset_uuid)s and state <> 'superseded'
      and block_range && int8range(%(range_start)s, %(range_end)s))
on conflict (task_id) do update set state = 'queued', batch_id = null, updated_at = now()
where trace.tasks.state = 'superseded';

-- name: lock_stream
select max_inflight from trace.streams where dataset_uuid = %(dataset_uuid)s for update;

-- name: lock_task
select task_id, state, attempt, generation, config_hash, lease_expires_at < now() as lapsed
from trace.tasks where task_id = %(task_id)s for update;

-- name: count_leased
select count(*) as leased from trace.tasks
where dataset_uuid = %(dataset_uuid)s and state = 'running' and lease_expires_at >= now()
  and task_id <> %(task_id)s;

-- name: expire_attempt
update trace.attempts set state = 'expired', ended_at = now()
where task_id = %(task_id)s and state = 'running';

-- name: start_attempt
insert into trace.attempts (task_id, attempt, lease_token, run_id)
values (%(task_id)s, %(attempt)s, %(lease_token)s, %(run_id)s);

-- name: lease_task
update trace.tasks
set state = 'running', attempt = %(attempt)s, lease_token = %(lease_token)s, updated_at = now(), error = null,
    lease_expires_at = now() + make_interval(secs => %(ttl_seconds)s)
where task_id = %(task_id)s;

-- name: heartbeat
with renewed as (
    update trace.tasks
    set lease_expires_at = now() + make_interval(secs => %(ttl_seconds)s), updated_at = now()
    where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running'
    returning task_id, attempt)
update trace.attempts a set heartbeat_at = now()
from renewed r where a.task_id = r.task_id and a.attempt = r.attempt;

-- name: fence
-- The holder's right to write, locked until the transaction ends.
select generation from trace.tasks
where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running'
for update;

-- name: fail_task
update trace.tasks
set state = case when %(retry)s then 'queued' else 'failed' end,
    failures = failures + 1, error = %(error)s, lease_token = null, lease_expires_at = null, updated_at = now()
where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running';

-- name: release_task
-- Given back unharmed, by a run that was told to stop: counts neither as failure nor as success.
update trace.tasks
set state = 'queued', lease_token = null, lease_expires_at = null, updated_at = now()
where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running';

-- name: end_attempt
update trace.attempts set state = %(state)s, ended_at = now(), error = %(error)s
where task_id = %(task_id)s and attempt = %(attempt)s and state = 'running';

-- name: finish_task
update trace.tasks
set state = 'committed', generation = %(generation)s, lease_token = null, lease_expires_at = null,
    error = null, updated_at = now()
where task_id = %(task_id)s;

-- name: failures_of
select failures from trace.tasks where task_id = %(task_id)s;

-- name: supersede_others
update trace.tasks set state = 'superseded', lease_token = null, lease_expires_at = null, updated_at = now()
where dataset_uuid = %(dataset_uuid)s and task_id <> %(task_id)s and state <> 'superseded';

-- name: requeue_failed
update trace.tasks set state = 'queued', failures = 0, batch_id = null, updated_at = now()
where state = 'failed' and dataset_uuid in (select dataset_uuid from trace.streams where job_id = %(job_id)s);
