-- The registry: what is wanted, who works on it, what is committed.
-- Every time in it is the database's own.
create extension if not exists btree_gist with schema public;

create table trace.jobs (
    job_id      uuid primary key,
    org_id      uuid not null,
    name        text not null check (name ~ '^[a-z][a-z0-9_]{0,63}$'),
    chain_id    bigint not null check (chain_id > 0),
    mode        text not null check (mode in ('fixed_target', 'follow_head')),
    spec        jsonb not null,
    enabled     boolean not null default true,
    applied_at  timestamptz not null default now(),
    unique (org_id, name)
);

-- A dataset key is bound to its source for ever: a Cryo dataset name, or an analytics template.
create table trace.datasets (
    dataset_uuid uuid primary key,
    org_id       uuid not null,
    chain_id     bigint not null check (chain_id > 0),
    dataset_key  text not null,
    kind         text not null check (kind in ('stream', 'derived')),
    source       text not null,
    parameters   jsonb not null default '{}',
    created_at   timestamptz not null default now()
);
create unique index datasets_one_stream_per_key on trace.datasets (org_id, chain_id, dataset_key)
    where kind = 'stream';

create table trace.streams (
    dataset_uuid   uuid primary key references trace.datasets,
    job_id         uuid not null references trace.jobs,
    rpc_pool       text not null,
    chunk_size     int not null check (chunk_size > 0),
    max_inflight   int not null check (max_inflight > 0),
    columns        text[] not null,
    config_hash    text not null,
    verify         text not null check (verify in ('full', 'structural', 'off')),
    options        jsonb not null,
    from_block     bigint not null check (from_block >= 0),
    to_block       bigint check (to_block > from_block),
    eligible_end   bigint,
    next_block     bigint not null,
    enabled        boolean not null default true,
    blocked_reason text
);
create index streams_by_job on trace.streams (job_id);

-- One row per range: the ledger and the durable unit of work in one.
create table trace.tasks (
    task_id          uuid primary key,
    dataset_uuid     uuid not null references trace.datasets,
    block_range      int8range not null
        check (not isempty(block_range) and lower_inc(block_range) and not upper_inc(block_range)),
    config_hash      text not null,
    generation       int not null default 0 check (generation >= 0),
    state            text not null default 'queued'
        check (state in ('queued', 'running', 'committed', 'failed', 'superseded')),
    attempt          int not null default 0 check (attempt >= 0),
    failures         int not null default 0 check (failures >= 0),
    lease_token      uuid,
    lease_expires_at timestamptz,
    batch_id         uuid,
    error            text,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    check ((state = 'running') = (lease_token is not null and lease_expires_at is not null)),
    exclude using gist (dataset_uuid with =, block_range with &&) where (state <> 'superseded')
);
create index tasks_by_dataset_state on trace.tasks (dataset_uuid, state);
create index tasks_queued on trace.tasks (dataset_uuid, lower(block_range)) where state in ('queued', 'running');

create table trace.attempts (
    task_id      uuid not null references trace.tasks,
    attempt      int not null check (attempt > 0),
    lease_token  uuid not null unique,
    run_id       text not null,
    state        text not null default 'running'
        check (state in ('running', 'committed', 'confirmed', 'failed', 'expired')),
    started_at   timestamptz not null default now(),
    heartbeat_at timestamptz not null default now(),
    ended_at     timestamptz,
    error        text,
    primary key (task_id, attempt)
);

-- What a range's rows are (logical); which objects hold them (physical) is version_files.
create table trace.dataset_versions (
    dataset_version   uuid primary key,
    dataset_uuid      uuid not null references trace.datasets,
    block_range       int8range not null check (not isempty(block_range)),
    generation        int not null check (generation >= 0),
    visible           boolean not null default true,
    task_id           uuid not null,
    attempt           int not null,
    config_hash       text not null,
    storage_ref       text not null,
    manifest_key      text not null,
    manifest_sha256   text not null check (manifest_sha256 ~ '^[0-9a-f]{64}$'),
    content_digest    text not null check (content_digest ~ '^[0-9a-f]{64}$'),
    row_count         bigint not null check (row_count >= 0),
    byte_count        bigint not null check (byte_count >= 0),
    schema_json       jsonb not null,
    verification      jsonb not null,
    metrics           jsonb not null default '{}',
    committed_at      timestamptz not null default now(),
    unique (task_id, attempt),
    foreign key (task_id, attempt) references trace.attempts,
    exclude using gist (dataset_uuid with =, block_range with &&) where (visible)
);
create index versions_visible on trace.dataset_versions (dataset_uuid, lower(block_range)) where visible;

create table trace.files (
    file_key  text primary key,
    bytes     bigint not null check (bytes > 0),
    sha256    text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    row_count bigint not null check (row_count >= 0),
    min_block bigint,
    max_block bigint
);

create table trace.version_files (
    dataset_version uuid not null references trace.dataset_versions,
    file_key        text not null references trace.files,
    primary key (dataset_version, file_key)
);
create index version_files_by_file on trace.version_files (file_key);

create table trace.outbox (
    outbox_id  uuid primary key,
    kind       text not null check (kind in ('task_wakeup', 'range_committed')),
    task_id    uuid not null references trace.tasks,
    payload    jsonb not null,
    created_at timestamptz not null default now(),
    sent_at    timestamptz
);
create index outbox_unsent on trace.outbox (created_at) where sent_at is null;

-- Which ranges went into which Dagster run; run_key of a batch is its id.
create table trace.batches (
    batch_id   uuid primary key,
    job_id     uuid not null references trace.jobs,
    keys       text[] not null check (cardinality(keys) > 0),
    created_at timestamptz not null default now(),
    closed_at  timestamptz
);
create index batches_open on trace.batches (created_at) where closed_at is null;
alter table trace.tasks add constraint tasks_batch foreign key (batch_id) references trace.batches;

create table trace.head_observations (
    chain_id    bigint not null,
    rpc_pool    text not null,
    latest      bigint not null check (latest >= 0),
    finalized   bigint not null check (finalized >= 0),
    changed_at  timestamptz not null default now(),
    observed_at timestamptz not null default now(),
    primary key (chain_id, rpc_pool)
);
