-- Proof: which fork a version lies on, which endpoints lied, what was invalidated, which streams stopped.

-- The hash chain at both ends of a version, where its rows or its evidence show it.
alter table trace.dataset_versions
    add column first_parent_hash bytea check (octet_length(first_parent_hash) = 32),
    add column last_block_hash bytea check (octet_length(last_block_hash) = 32);
create index versions_by_end on trace.dataset_versions (dataset_uuid, upper(block_range)) where visible;

-- A URL is filed under its digest: the order of a pool may change, its keys are nobody's business.
create table trace.endpoints (
    rpc_pool    text not null,
    fingerprint text not null check (fingerprint ~ '^[0-9a-f]{16}$'),
    name        text not null,
    lies        bigint not null default 0 check (lies >= 0),
    score       double precision not null default 0 check (score >= 0),
    lied_at     timestamptz,
    reason      text,
    primary key (rpc_pool, fingerprint)
);

create table trace.invalidations (
    invalidation_id bigint generated always as identity primary key,
    dataset_version uuid not null references trace.dataset_versions,
    reason          text not null,
    invalidated_at  timestamptz not null default now()
);
create index invalidations_by_version on trace.invalidations (dataset_version);

-- Why a stream stands still until someone looks: an answer this version does not know.
alter table trace.streams add column halted_reason text;
