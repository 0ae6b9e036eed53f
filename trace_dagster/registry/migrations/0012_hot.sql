-- Hot rows: the newest blocks of a chain, in Postgres until their ranges are committed to the object store.
-- All rows of these tables are visible. They go in the transaction that commits their range, or that proves a fork.
create schema if not exists hot;

-- One follower of a chain at a time: the service, or the sensor. ``token`` fences a holder whose lease was taken over.
create table hot.followers (
    org_id       uuid not null,
    chain_id     bigint not null,
    token        bigint not null default 0 check (token >= 0),
    holder       text,
    expires_at   timestamptz,
    -- Why it does not go on; null if it does.
    reason       text,
    -- A range that was to be committed has another hash at this block: the follower compares its chain from here on.
    recheck_from bigint check (recheck_from >= 0),
    primary key (org_id, chain_id),
    check ((holder is null) = (expires_at is null))
);

-- The chain as the follower proved it, one row per block. Hashes are kept longer than rows, to find deep forks.
create table hot.chain (
    org_id          uuid not null,
    chain_id        bigint not null,
    block_number    bigint not null check (block_number >= 0),
    block_hash      bytea not null check (octet_length(block_hash) = 32),
    parent_hash     bytea not null check (octet_length(parent_hash) = 32),
    block_timestamp timestamptz not null,
    level           text not null,
    -- When the follower learned of the block; null if it filled a gap.
    shown_at        timestamptz,
    stored_at       timestamptz not null default clock_timestamp(),
    primary key (org_id, chain_id, block_number)
);

-- The heads of a chain: the newest stored block, and those that the chain's nodes call safe and finalized.
create table hot.heads (
    org_id       uuid not null,
    chain_id     bigint not null,
    tag          text not null check (tag in ('latest', 'safe', 'finalized')),
    block_number bigint not null check (block_number >= 0),
    -- Null if the block is not in hot.chain.
    block_hash   bytea check (octet_length(block_hash) = 32),
    observed_at  timestamptz not null default clock_timestamp(),
    primary key (org_id, chain_id, tag)
);

-- The streams that have hot rows. A commit and the follower lock a stream's row before they move its rows.
create table hot.streams (
    dataset_uuid uuid primary key references trace.streams,
    -- Columns and meaning of the rows: rows of another configuration are no rows of the stream.
    config_hash  text not null,
    -- The blocks whose rows are here, also those without any row.
    blocks       int8multirange not null default '{}'
);

create table hot.reorgs (
    reorg_id   bigint generated always as identity primary key,
    org_id     uuid not null,
    chain_id   bigint not null,
    -- The first block that is another one now.
    fork_block bigint not null check (fork_block >= 0),
    old_head   bigint not null,
    -- Null if no committed version of the old head tells it.
    old_hash   bytea check (octet_length(old_hash) = 32),
    new_head   bigint not null,
    new_hash   bytea not null check (octet_length(new_hash) = 32),
    -- Blocks from fork_block to old_head.
    depth      bigint not null check (depth > 0),
    -- Committed versions that left the view.
    versions   integer not null default 0 check (versions >= 0),
    found_at   timestamptz not null default clock_timestamp()
);
create index reorgs_by_chain on hot.reorgs (org_id, chain_id, reorg_id);

-- The tables below have every column that a stream of the dataset can store; columns that it does not store are null.
-- They have no foreign key to hot.streams: rows come and go only under its lock, so a check of each would find nothing.
create table hot.blocks (
    dataset_uuid             uuid not null,
    block_hash               bytea not null check (octet_length(block_hash) = 32),
    parent_hash              bytea check (octet_length(parent_hash) = 32),
    author                   bytea check (octet_length(author) = 20),
    state_root               bytea check (octet_length(state_root) = 32),
    transactions_root        bytea check (octet_length(transactions_root) = 32),
    receipts_root            bytea check (octet_length(receipts_root) = 32),
    block_number             bigint not null,
    block_timestamp          timestamptz not null,
    gas_used                 bigint,
    extra_data               bytea,
    logs_bloom               bytea,
    timestamp                bigint,
    total_difficulty_binary  bytea check (octet_length(total_difficulty_binary) = 32),
    total_difficulty_string  text,
    total_difficulty_f64     double precision,
    size                     bigint,
    base_fee_per_gas         numeric(38, 0),
    chain_id                 bigint,
    primary key (dataset_uuid, block_number),
    unique (dataset_uuid, block_hash)
);

create table hot.transactions (
    dataset_uuid              uuid not null,
    block_number              bigint not null,
    block_timestamp           timestamptz not null,
    transaction_index         bigint not null,
    transaction_hash          bytea check (octet_length(transaction_hash) = 32),
    nonce                     bigint,
    from_address              bytea check (octet_length(from_address) = 20),
    to_address                bytea check (octet_length(to_address) = 20),
    value_binary              bytea check (octet_length(value_binary) = 32),
    value_string              text,
    value_f64                 double precision,
    input                     bytea,
    gas_limit                 bigint,
    gas_used                  bigint,
    gas_price                 numeric(38, 0),
    transaction_type          bigint,
    max_priority_fee_per_gas  numeric(38, 0),
    max_fee_per_gas           numeric(38, 0),
    success                   boolean,
    n_input_bytes             bigint,
    n_input_zero_bytes        bigint,
    n_input_nonzero_bytes     bigint,
    n_rlp_bytes               bigint,
    block_hash                bytea not null check (octet_length(block_hash) = 32),
    timestamp                 bigint,
    chain_id                  bigint,
    primary key (dataset_uuid, block_number, transaction_index),
    unique (dataset_uuid, block_hash, transaction_index)
);
create index transactions_transaction_hash on hot.transactions (dataset_uuid, transaction_hash, block_number);

create table hot.logs (
    dataset_uuid       uuid not null,
    block_number       bigint not null,
    block_timestamp    timestamptz not null,
    block_hash         bytea not null check (octet_length(block_hash) = 32),
    transaction_index  bigint,
    log_index          bigint not null,
    transaction_hash   bytea check (octet_length(transaction_hash) = 32),
    address            bytea check (octet_length(address) = 20),
    topic0             bytea check (octet_length(topic0) = 32),
    topic1             bytea check (octet_length(topic1) = 32),
    topic2             bytea check (octet_length(topic2) = 32),
    topic3             bytea check (octet_length(topic3) = 32),
    data               bytea,
    chain_id           bigint,
    primary key (dataset_uuid, block_number, log_index),
    unique (dataset_uuid, block_hash, log_index)
);
create index logs_address on hot.logs (dataset_uuid, address, block_number);
create index logs_topic0 on hot.logs (dataset_uuid, topic0, block_number);
create index logs_transaction_hash on hot.logs (dataset_uuid, transaction_hash, block_number);

-- Rows go by thousands with each commit of a range: the space is used again sooner than by default.
alter table hot.blocks set (autovacuum_vacuum_scale_factor = 0.05);
alter table hot.transactions set (autovacuum_vacuum_scale_factor = 0.05);
alter table hot.logs set (autovacuum_vacuum_scale_factor = 0.05);

-- The change log has hot blocks too: ``hot`` (rows came), ``invalidated`` (a fork removed them), ``pruned`` (they left).
alter table trace.changes
    drop constraint changes_kind_check,
    add constraint changes_kind_check check (kind in ('committed', 'invalidated', 'compacted', 'hot', 'pruned')),
    -- The hash of the last block of the range, if it is known.
    add column block_hash bytea check (octet_length(block_hash) = 32);

-- Blocks up to here are planned to be committed although the stream has hot rows of them; see planning/cold.py.
alter table trace.streams add column cold_end bigint not null default 0 check (cold_end >= 0);
-- Every block in [planned_from, next_block) is planned, or was when the planner stored it: history may follow the tip.
alter table trace.streams add column planned_from bigint not null default 0 check (planned_from >= 0);
