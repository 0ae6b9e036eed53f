-- Wake-ups: the outbox is published to a queue, the queue wakes runs; retries wait, leases that lapse are counted apart.

alter table trace.tasks
    drop constraint tasks_state_check,
    add constraint tasks_state_check
        check (state in ('queued', 'running', 'committed', 'failed', 'dead', 'superseded')),
    add column expiries int not null default 0 check (expiries >= 0),
    add column not_before timestamptz not null default now(),
    add column wake_seq int not null default 0 check (wake_seq >= 0),
    add column woken_at timestamptz;
create index tasks_by_start on trace.tasks (dataset_uuid, lower(block_range));
create index versions_by_start on trace.dataset_versions (dataset_uuid, lower(block_range));
create index tasks_by_batch on trace.tasks (batch_id) where batch_id is not null;
create index tasks_unfinished on trace.tasks (woken_at) where state in ('queued', 'running');

-- A wake-up of a retry must not be published before its backoff is over.
alter table trace.outbox add column available_at timestamptz not null default now();
drop index trace.outbox_unsent;
create index outbox_unsent on trace.outbox (kind, available_at) where sent_at is null;

create table trace.queue_messages (
    message_id  bigint generated always as identity primary key,
    body        text not null,
    enqueued_at timestamptz not null default now(),
    visible_at  timestamptz not null default now(),
    receipt     uuid unique,
    deliveries  int not null default 0 check (deliveries >= 0)
);
create index queue_messages_visible on trace.queue_messages (visible_at, message_id);

create table trace.queue_dead (
    message_id  bigint primary key,
    body        text not null,
    enqueued_at timestamptz not null,
    deliveries  int not null check (deliveries >= 0),
    died_at     timestamptz not null default now()
);

-- Receipts of the wake-ups a batch answers: acknowledged once its run exists.
alter table trace.batches
    add column receipts text[] not null default '{}',
    add column tasks int not null default 0,
    add column launched_at timestamptz;

alter table trace.head_observations
    add column org_id uuid not null default '00000000-0000-0000-0000-000000000001',
    add column asked_at timestamptz not null default now(),
    add column error text,
    alter column latest drop not null,
    alter column finalized drop not null,
    alter column observed_at drop not null,
    alter column observed_at drop default,
    drop constraint head_observations_pkey,
    add primary key (org_id, chain_id, rpc_pool),
    add constraint head_observations_whole
        check ((latest is null) = (finalized is null) and (latest is null) = (observed_at is null));
alter table trace.head_observations alter column org_id drop default;

-- Runs that work show here that they live: Dagster cannot tell a dead one from a busy one.
create table trace.run_beats (
    run_id  text primary key,
    beat_at timestamptz not null default clock_timestamp()
);

-- When a version stopped being visible, and when sweep took its objects.
alter table trace.dataset_versions
    add column hidden_at timestamptz,
    add column swept_at timestamptz;
update trace.dataset_versions set hidden_at = now() where not visible;
alter table trace.dataset_versions
    add constraint dataset_versions_hidden check (visible = (hidden_at is null)),
    add constraint dataset_versions_swept check (swept_at is null or not visible);

-- An attempt counts as committed only with exactly one publication: (task_id, attempt) is unique there.
create function trace.require_publication() returns trigger language plpgsql as $$
begin
    if not exists (select 1 from trace.dataset_versions v where v.task_id = new.task_id and v.attempt = new.attempt) then
        raise exception 'attempt % of task % has no publication', new.attempt, new.task_id
            using errcode = 'check_violation', constraint = 'attempts_committed_with_publication';
    end if;
    return null;
end $$;
create constraint trigger attempts_committed_with_publication
    after insert or update of state on trace.attempts
    deferrable initially deferred for each row when (new.state = 'committed')
    execute function trace.require_publication();
