-- Who may ask the query service, and what was asked. No table holds a token or the text of a query.

-- A token, a one-time login link of the page, or a session of the page, by its SHA-256.
create table trace.query_tokens (
    token_id           uuid primary key default gen_random_uuid(),
    org_id             uuid not null,
    kind               text not null check (kind in ('token', 'link', 'session')),
    name               text not null check (length(name) between 1 and 100),
    token_hash         bytea not null unique check (octet_length(token_hash) = 32),
    -- Patterns of datasets that it may see, such as chain_143.* or chain_1.logs; null: all of them.
    grants             text[] check (cardinality(grants) between 1 and 1000),
    -- Queries that run or wait at a time, and that begin in a minute; null: what the service allows anyone.
    max_queries        integer check (max_queries > 0),
    queries_per_minute integer check (queries_per_minute > 0),
    -- The link that a session was made with.
    made_by            uuid references trace.query_tokens on delete cascade,
    created_at         timestamptz not null default now(),
    expires_at         timestamptz,
    -- When a link was used: it works once.
    used_at            timestamptz,
    revoked_at         timestamptz,
    check ((made_by is not null) = (kind = 'session')),
    check (kind = 'token' or expires_at is not null)
);
-- A name finds one token that is not revoked.
create unique index query_tokens_by_name on trace.query_tokens (org_id, name)
    where kind = 'token' and revoked_at is null;

-- One row per query, written when it begins and completed when it ends.
create table trace.query_log (
    query_id    uuid primary key,
    org_id      uuid not null,
    -- Null if no valid token was shown. It is no reference: the log outlives tokens.
    token_id    uuid,
    token_name  text,
    format      text not null check (format in ('json', 'arrow', 'csv', 'parquet')),
    started_at  timestamptz not null default clock_timestamp(),
    -- The latest moment at which it can still run: until then sweep keeps the files that it may read.
    deadline_at timestamptz not null,
    ended_at    timestamptz,
    -- Null while it runs. done: all rows were sent; denied: no valid token; busy: no place in the queue; refused: the
    -- query is wrong; timeout; failed: a server or file did not answer; cancelled: the client left or asked for it;
    -- broken: a stream failed midway.
    outcome     text check (outcome in
        ('done', 'truncated', 'denied', 'busy', 'refused', 'timeout', 'failed', 'cancelled', 'broken')),
    -- Cursor of the change log at the snapshot; null if it ended before it read anything.
    snapshot    text,
    -- By full name: {"files": count, "digest": of their sorted keys, "first_block", "last_block"}.
    datasets    jsonb not null default '{}',
    rows        bigint check (rows >= 0),
    bytes       bigint check (bytes >= 0),
    check ((ended_at is null) = (outcome is null))
);
create index query_log_by_time on trace.query_log (started_at);
create index running_queries on trace.query_log (deadline_at) where ended_at is null;
