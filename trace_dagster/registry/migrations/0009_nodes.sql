-- Nodes: what may be said of an endpoint, and one head per rule of finality.

-- Records of the rule that every failed proof is a lie: many were honest answers in forms that were not known then.
truncate trace.endpoints;

-- Answers of a method that proven data contradicts at one endpoint, although nobody can call them a lie: a node may
-- leave out logs on purpose. The method is not asked there for a while.
create table trace.unreliable_methods (
    rpc_pool    text not null,
    fingerprint text not null check (fingerprint ~ '^[0-9a-f]{16}$'),
    method      text not null check (method <> ''),
    name        text not null,
    reason      text not null,
    noted_at    timestamptz not null default now(),
    primary key (rpc_pool, fingerprint, method)
);

-- The finalized block depends on the job's finality_blocks; -1 stands for a job that sets none.
alter table trace.head_observations
    add column finality_blocks bigint not null default -1 check (finality_blocks >= -1),
    drop constraint head_observations_pkey,
    add primary key (org_id, chain_id, rpc_pool, finality_blocks);
alter table trace.head_observations alter column finality_blocks drop default;
