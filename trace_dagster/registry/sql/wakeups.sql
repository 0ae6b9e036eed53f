-- name: wake_tasks
-- Give tasks that are not done a new wake sequence, and say when they are due.
with locked as (
    select task_id from trace.tasks where task_id = any(%(task_ids)s) order by task_id for update)
update trace.tasks t
set wake_seq = t.wake_seq + 1, woken_at = greatest(now(), t.not_before)
from locked where t.task_id = locked.task_id and t.state in ('queued', 'running')
returning t.task_id, t.attempt + 1 as attempt, t.wake_seq, greatest(t.not_before, t.lease_expires_at) as due_at;

-- name: insert_outbox
-- Write an outbox event, unless it exists.
insert into trace.outbox (outbox_id, kind, task_id, payload, available_at)
values (%(outbox_id)s, %(kind)s, %(task_id)s, %(payload)s, coalesce(%(available_at)s, now()))
on conflict (outbox_id) do nothing;

-- name: unsent_wakeups
-- Lock due wake-ups that were not sent, so that two publishers never send the same one at once.
select outbox_id, task_id, payload from trace.outbox
where kind = 'task_wakeup' and sent_at is null and available_at <= now()
order by available_at limit %(limit)s
for update skip locked;

-- name: mark_sent
-- Mark outbox events as sent.
update trace.outbox set sent_at = now() where outbox_id = any(%(outbox_ids)s);

-- name: overdue_tasks
-- Tasks that should have been picked up long ago: their wake-up was lost, or their holder died.
select t.task_id
from trace.tasks t
join trace.streams s on s.dataset_uuid = t.dataset_uuid and s.enabled and s.halted_reason is null
    and s.form = trace.lake_form()
join trace.jobs j on j.job_id = s.job_id and j.enabled
left join trace.batches b on b.batch_id = t.batch_id and b.closed_at is null
where ((t.state = 'queued' and t.not_before <= now() and b.batch_id is null)
       or (t.state = 'running' and t.lease_expires_at < now()))
  and (t.woken_at is null or t.woken_at < now() - make_interval(secs => %(patience_seconds)s))
order by t.woken_at nulls first limit %(limit)s
for update of t skip locked;

-- name: detach_from_batches
-- Detach tasks with a lapsed lease from the batch that their run came from.
update trace.tasks set batch_id = null
where task_id = any(%(task_ids)s) and state = 'running' and lease_expires_at < now();

-- name: woken_tasks
-- The state of woken tasks: whether they can be launched, and whether they are in a batch.
select t.task_id, t.dataset_uuid,
       (t.state = 'queued' and t.not_before <= now()) or (t.state = 'running' and t.lease_expires_at < now())
           as launchable,
       b.batch_id is not null as batched, b.launched_at is not null as launched
from trace.tasks t
left join trace.batches b on b.batch_id = t.batch_id and b.closed_at is null
where t.task_id = any(%(task_ids)s);

-- name: try_lock_dispatch
-- Lock the dispatcher if no other process cuts batches.
select pg_try_advisory_xact_lock(hashtextextended('trace:dispatch', 0)) as locked;

-- name: launchable_tasks
-- Tasks that are due, or whose holder died, and that are in no open batch: those above the cursor, then by block.
select t.task_id, t.dataset_uuid, lower(t.block_range) as range_start, upper(t.block_range) as range_end
from trace.tasks t
join trace.streams s on s.dataset_uuid = t.dataset_uuid and s.enabled and s.halted_reason is null
    and s.form = trace.lake_form()
join trace.jobs j on j.job_id = s.job_id and j.enabled
where s.dataset_uuid = any(%(dataset_uuids)s)
  and ((t.state = 'queued' and t.not_before <= now()) or (t.state = 'running' and t.lease_expires_at < now()))
  and (t.batch_id is null or exists (
        select 1 from trace.batches b where b.batch_id = t.batch_id and b.closed_at is not null))
order by lower(t.block_range) < s.next_block,
         lower(t.block_range) * case when %(newest_first)s then -1 else 1 end, t.dataset_uuid
limit %(limit)s
for update of t skip locked;

-- name: insert_batch
-- Store a batch with the receipts of its wake-ups.
insert into trace.batches (batch_id, job_id, keys, tasks, receipts)
values (%(batch_id)s, %(job_id)s, %(keys)s, %(tasks)s, %(receipts)s);

-- name: assign_batch
-- Put tasks into a batch.
update trace.tasks set batch_id = %(batch_id)s where task_id = any(%(task_ids)s);

-- name: open_batches
-- Batches that are not closed, their datasets, and whether they have waited too long for their run.
select b.batch_id, b.receipts, b.launched_at is not null as launched,
       b.created_at < now() - make_interval(secs => %(grace_seconds)s) as overdue,
       array(select distinct t.dataset_uuid from trace.tasks t where t.batch_id = b.batch_id) as dataset_uuids
from trace.batches b where b.closed_at is null order by b.created_at;

-- name: launch_batch
-- Record that a batch's run exists.
update trace.batches set launched_at = now(), receipts = '{}' where batch_id = %(batch_id)s;

-- name: tasks_left
-- Tasks of a batch that its run did not finish.
select task_id from trace.tasks where batch_id = %(batch_id)s and state in ('queued', 'running');

-- name: delay_unstarted_tasks
-- Delay the tasks of a run that started none of them: it would fail the same way again.
with locked as (
    select t.task_id from trace.tasks t
    where t.batch_id = %(batch_id)s and t.state = 'queued' order by t.task_id for update)
update trace.tasks t set not_before = now() + make_interval(secs => %(seconds)s)
from locked, trace.batches b
where t.task_id = locked.task_id and b.batch_id = %(batch_id)s and b.tasks = (select count(*) from locked);

-- name: close_batch
-- Close a batch.
update trace.batches set closed_at = now(), receipts = '{}' where batch_id = %(batch_id)s;

-- name: unconfirmed_commits
-- Commits that Dagster has not confirmed to show, the oldest first.
select o.outbox_id, d.chain_id, d.dataset_key, d.kind, v.*,
       lower(v.block_range) as range_start, upper(v.block_range) as range_end
from trace.outbox o
join trace.dataset_versions v on v.dataset_version = (o.payload ->> 'dataset_version')::uuid
join trace.datasets d on d.dataset_uuid = v.dataset_uuid
where o.kind = 'range_committed' and o.sent_at is null
  and o.available_at < now() - make_interval(secs => %(older_than_seconds)s)
order by o.available_at limit %(limit)s;
