-- name: insert_task
-- Insert a task, or queue it again if it was superseded.
insert into trace.tasks (task_id, dataset_uuid, block_range, config_hash)
values (%(task_id)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(config_hash)s)
on conflict (task_id) do update
set state = 'queued', batch_id = null, failures = 0, expiries = 0, not_before = now(), error = null, updated_at = now(),
    config_hash = excluded.config_hash
where trace.tasks.state = 'superseded';

-- name: insert_task_if_free
-- Plan a range that a user asked for, unless an active range touches it, it is not final, or its stream was rebuilt.
insert into trace.tasks (task_id, dataset_uuid, block_range, config_hash)
select %(task_id)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(config_hash)s
where not exists (
    select 1 from trace.tasks
    where dataset_uuid = %(dataset_uuid)s and state <> 'superseded'
      and block_range && int8range(%(range_start)s, %(range_end)s))
  and not exists (
    select 1 from trace.streams
    where dataset_uuid = %(dataset_uuid)s and (eligible_end < %(range_end)s or config_hash <> %(config_hash)s))
on conflict (task_id) do update
set state = 'queued', batch_id = null, failures = 0, expiries = 0, not_before = now(), error = null, updated_at = now(),
    config_hash = excluded.config_hash
where trace.tasks.state = 'superseded';

-- name: lock_stream
-- Lock a stream, and read whether it may work.
select s.max_inflight, s.enabled and j.enabled as enabled, s.halted_reason, s.form, j.name as job_name
from trace.streams s join trace.jobs j on j.job_id = s.job_id
where s.dataset_uuid = %(dataset_uuid)s for no key update of s;

-- name: lock_task
-- Lock a task, and read its state.
select task_id, state, attempt, generation, config_hash, expiries, lease_expires_at < now() as lapsed,
       not_before <= now() as due
from trace.tasks where task_id = %(task_id)s for update;

-- name: claim_terms
-- Number of other leased ranges of the dataset, and the generation that a commit would publish.
-- Only a running task has a lease: an index by state would also hold queued tasks.
select (select count(*) from trace.tasks
        where dataset_uuid = %(dataset_uuid)s and lease_expires_at >= now() and task_id <> %(task_id)s) as leased,
       (select coalesce(max(generation) + 1, 0) from trace.dataset_versions
        where dataset_uuid = %(dataset_uuid)s and lower(block_range) = %(range_start)s
          and block_range = int8range(%(range_start)s, %(range_end)s)) as generation;

-- name: expire_attempt
-- End the attempt whose lease has lapsed.
update trace.attempts set state = 'expired', ended_at = now()
where task_id = %(task_id)s and state = 'running';

-- name: start_attempt
-- Lease a task to a new attempt.
with leased as (
    update trace.tasks
    set state = 'running', attempt = %(attempt)s, lease_token = %(lease_token)s, updated_at = now(),
        expiries = expiries + case when state = 'running' then 1 else 0 end,
        lease_expires_at = now() + make_interval(secs => %(ttl_seconds)s)
    where task_id = %(task_id)s)
insert into trace.attempts (task_id, attempt, lease_token, run_id)
values (%(task_id)s, %(attempt)s, %(lease_token)s, %(run_id)s);

-- name: mark_task_dead
-- Mark a task dead because its holders keep dying.
update trace.tasks
set state = 'dead', expiries = expiries + 1, lease_token = null, lease_expires_at = null, batch_id = null,
    error = %(error)s, updated_at = now()
where task_id = %(task_id)s;

-- name: heartbeat
-- Renew a lease.
with renewed as (
    update trace.tasks
    set lease_expires_at = now() + make_interval(secs => %(ttl_seconds)s), updated_at = now()
    where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running'
    returning task_id, attempt)
update trace.attempts a set heartbeat_at = now()
from renewed r where a.task_id = r.task_id and a.attempt = r.attempt;

-- name: fence
-- Lock the holder's right to write until the transaction ends, and read what it may write.
select generation, dataset_uuid, config_hash, lower(block_range) as range_start, upper(block_range) as range_end
from trace.tasks
where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running'
for update;

-- name: fail_task
-- Record a failure: final, or queued again after a backoff with jitter, or dead after max_attempts that are counted.
update trace.tasks
set state = case when not %(retry)s then 'failed'
                 when %(is_counted)s and failures + 1 >= %(max_attempts)s then 'dead' else 'queued' end,
    error = case when %(retry)s and %(is_counted)s and failures + 1 >= %(max_attempts)s
                 then 'gave up after ' || failures + 1 || ' tries: ' || %(error)s else %(error)s end,
    failures = failures + case when %(is_counted)s then 1 else 0 end, lease_token = null, lease_expires_at = null, batch_id = null, updated_at = now(),
    not_before = now() + make_interval(
        secs => least(%(longest_seconds)s,
                      %(base_seconds)s * 2.0 ^ least(case when %(is_counted)s then failures else attempt end, 30))
                * (0.5 + random() / 2))
where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running'
returning state;

-- name: release_task
-- Return a task to the queue because its run stops. It counts neither as failure nor as success.
update trace.tasks
set state = 'queued', lease_token = null, lease_expires_at = null, batch_id = null, not_before = now(),
    updated_at = now()
where task_id = %(task_id)s and attempt = %(attempt)s and lease_token = %(lease_token)s and state = 'running';

-- name: end_attempt
-- End an attempt with its state and reason.
update trace.attempts set state = %(state)s, ended_at = now(), error = %(error)s
where task_id = %(task_id)s and attempt = %(attempt)s and state = 'running';

-- name: finish_attempt
-- Mark a task committed, and end its attempt.
with finished as (
    update trace.tasks
    set state = 'committed', generation = %(generation)s, lease_token = null, lease_expires_at = null, batch_id = null,
        failures = 0, expiries = 0, error = null, updated_at = now()
    where task_id = %(task_id)s)
update trace.attempts set state = %(state)s, ended_at = now()
where task_id = %(task_id)s and attempt = %(attempt)s and state = 'running';

-- name: supersede_others
-- Make one task the dataset's only active one: derived datasets are replaced as a whole.
with moved as (
    update trace.tasks
    set state = 'superseded', lease_token = null, lease_expires_at = null, batch_id = null, updated_at = now()
    where dataset_uuid = %(dataset_uuid)s and task_id <> %(task_id)s and state <> 'superseded'
    returning task_id)
update trace.attempts a set state = 'expired', ended_at = now(), error = 'its dataset was replaced meanwhile'
from moved m where a.task_id = m.task_id and a.state = 'running';

-- name: requeue_tasks
-- Queue tasks again because a user asked: failed and dead ones, or committed ones to compare them with the chain.
-- Statements that change many tasks lock them in one order, so that no two of them wait for each other.
with locked as (
    select t.task_id
    from trace.tasks t
    join trace.streams s on s.dataset_uuid = t.dataset_uuid
    join trace.datasets d on d.dataset_uuid = s.dataset_uuid
    where s.job_id = %(job_id)s
      and (%(dataset_key)s::text is null or d.dataset_key = %(dataset_key)s)
      and t.block_range && int8range(%(range_start)s, %(range_end)s)
      and t.state = any(%(states)s)
    order by t.task_id for update of t)
update trace.tasks t
set state = 'queued', failures = 0, expiries = 0, not_before = now(), batch_id = null, updated_at = now()
from locked where t.task_id = locked.task_id
returning t.task_id;
