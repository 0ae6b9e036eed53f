-- Schemas trace and hot, as the migrations make them. Written by `make schema`; do not edit.

CREATE SCHEMA hot;
CREATE SCHEMA trace;
CREATE FUNCTION trace.keep_visible_totals() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if not exists (select from after) then
        return null;
    end if;
    -- The dataset's row first: two commits that move ranges between the same two levels never wait in a circle.
    perform from trace.datasets where dataset_uuid in (select dataset_uuid from after)
    order by dataset_uuid for no key update;
    if tg_op = 'UPDATE' then
        update trace.visible_totals t
        set ranges = t.ranges - b.ranges, row_count = t.row_count - b.row_count,
            byte_count = t.byte_count - b.byte_count, blocks = t.blocks - b.blocks
        from (select dataset_uuid, coalesce(verification ->> 'level', 'off') as level, count(*) as ranges,
                     sum(row_count) as row_count, sum(byte_count) as byte_count, range_agg(block_range) as blocks
              from before where visible and form = trace.lake_form() group by 1, 2) b
        where t.dataset_uuid = b.dataset_uuid and t.level = b.level;
    end if;
    insert into trace.visible_totals as t (dataset_uuid, level, ranges, row_count, byte_count, blocks)
    select dataset_uuid, coalesce(verification ->> 'level', 'off'), count(*), sum(row_count), sum(byte_count),
           range_agg(block_range)
    from after where visible and form = trace.lake_form() group by 1, 2
    on conflict (dataset_uuid, level) do update
    set ranges = t.ranges + excluded.ranges, row_count = t.row_count + excluded.row_count,
        byte_count = t.byte_count + excluded.byte_count, blocks = t.blocks + excluded.blocks;
    return null;
end $$;
CREATE FUNCTION trace.lake_form() RETURNS smallint
    LANGUAGE sql IMMUTABLE
    AS $$select 2::smallint$$;
CREATE FUNCTION trace.mask_hidden_versions() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    update trace.files f set masked_blocks = f.masked_blocks + hidden.blocks
    from (select l.file_key, range_agg(a.block_range) as blocks
          from before b
          join after a using (dataset_version)
          join trace.version_files l on l.dataset_version = a.dataset_version and l.replaced_at is null
          where b.visible and not a.visible group by l.file_key) hidden
    where f.file_key = hidden.file_key and f.layout_id is not null;
    return null;
end $$;
CREATE FUNCTION trace.may_contain(summary bytea, hashes smallint, first_hash bigint, second_hash bigint) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
declare
    bits bigint := 8 * octet_length(summary);
    place bigint;
begin
    for number in 0 .. hashes - 1 loop
        place := (first_hash + number * second_hash) % bits;
        if get_bit(substring(summary from (place / 8 + 1)::int for 1), place % 8) = 0 then
            return false;
        end if;
    end loop;
    return true;
end $$;
CREATE FUNCTION trace.require_publication() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if not exists (select 1 from trace.dataset_versions v where v.task_id = new.task_id and v.attempt = new.attempt) then
        raise exception 'attempt % of task % has no publication', new.attempt, new.task_id
            using errcode = 'check_violation', constraint = 'attempts_committed_with_publication';
    end if;
    return null;
end $$;
CREATE TABLE hot.blocks (
    dataset_uuid uuid NOT NULL,
    block_hash bytea NOT NULL,
    parent_hash bytea,
    author bytea,
    state_root bytea,
    transactions_root bytea,
    receipts_root bytea,
    block_number bigint NOT NULL,
    block_timestamp timestamp with time zone NOT NULL,
    gas_used bigint,
    extra_data bytea,
    logs_bloom bytea,
    "timestamp" bigint,
    total_difficulty_binary bytea,
    total_difficulty_string text,
    total_difficulty_f64 double precision,
    size bigint,
    base_fee_per_gas numeric(38,0),
    chain_id bigint,
    CONSTRAINT blocks_author_check CHECK ((octet_length(author) = 20)),
    CONSTRAINT blocks_block_hash_check CHECK ((octet_length(block_hash) = 32)),
    CONSTRAINT blocks_parent_hash_check CHECK ((octet_length(parent_hash) = 32)),
    CONSTRAINT blocks_receipts_root_check CHECK ((octet_length(receipts_root) = 32)),
    CONSTRAINT blocks_state_root_check CHECK ((octet_length(state_root) = 32)),
    CONSTRAINT blocks_total_difficulty_binary_check CHECK ((octet_length(total_difficulty_binary) = 32)),
    CONSTRAINT blocks_transactions_root_check CHECK ((octet_length(transactions_root) = 32))
)
WITH (autovacuum_vacuum_scale_factor='0.05');
CREATE TABLE hot.chain (
    org_id uuid NOT NULL,
    chain_id bigint NOT NULL,
    block_number bigint NOT NULL,
    block_hash bytea NOT NULL,
    parent_hash bytea NOT NULL,
    block_timestamp timestamp with time zone NOT NULL,
    level text NOT NULL,
    shown_at timestamp with time zone,
    stored_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_block_hash_check CHECK ((octet_length(block_hash) = 32)),
    CONSTRAINT chain_block_number_check CHECK ((block_number >= 0)),
    CONSTRAINT chain_parent_hash_check CHECK ((octet_length(parent_hash) = 32))
);
CREATE TABLE hot.followers (
    org_id uuid NOT NULL,
    chain_id bigint NOT NULL,
    token bigint DEFAULT 0 NOT NULL,
    holder text,
    expires_at timestamp with time zone,
    reason text,
    recheck_from bigint,
    CONSTRAINT followers_check CHECK (((holder IS NULL) = (expires_at IS NULL))),
    CONSTRAINT followers_recheck_from_check CHECK ((recheck_from >= 0)),
    CONSTRAINT followers_token_check CHECK ((token >= 0))
);
CREATE TABLE hot.heads (
    org_id uuid NOT NULL,
    chain_id bigint NOT NULL,
    tag text NOT NULL,
    block_number bigint NOT NULL,
    block_hash bytea,
    observed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT heads_block_hash_check CHECK ((octet_length(block_hash) = 32)),
    CONSTRAINT heads_block_number_check CHECK ((block_number >= 0)),
    CONSTRAINT heads_tag_check CHECK ((tag = ANY (ARRAY['latest'::text, 'safe'::text, 'finalized'::text])))
);
CREATE TABLE hot.logs (
    dataset_uuid uuid NOT NULL,
    block_number bigint NOT NULL,
    block_timestamp timestamp with time zone NOT NULL,
    block_hash bytea NOT NULL,
    transaction_index bigint,
    log_index bigint NOT NULL,
    transaction_hash bytea,
    address bytea,
    topic0 bytea,
    topic1 bytea,
    topic2 bytea,
    topic3 bytea,
    data bytea,
    chain_id bigint,
    CONSTRAINT logs_address_check CHECK ((octet_length(address) = 20)),
    CONSTRAINT logs_block_hash_check CHECK ((octet_length(block_hash) = 32)),
    CONSTRAINT logs_topic0_check CHECK ((octet_length(topic0) = 32)),
    CONSTRAINT logs_topic1_check CHECK ((octet_length(topic1) = 32)),
    CONSTRAINT logs_topic2_check CHECK ((octet_length(topic2) = 32)),
    CONSTRAINT logs_topic3_check CHECK ((octet_length(topic3) = 32)),
    CONSTRAINT logs_transaction_hash_check CHECK ((octet_length(transaction_hash) = 32))
)
WITH (autovacuum_vacuum_scale_factor='0.05');
CREATE TABLE hot.reorgs (
    reorg_id bigint NOT NULL,
    org_id uuid NOT NULL,
    chain_id bigint NOT NULL,
    fork_block bigint NOT NULL,
    old_head bigint NOT NULL,
    old_hash bytea,
    new_head bigint NOT NULL,
    new_hash bytea NOT NULL,
    depth bigint NOT NULL,
    versions integer DEFAULT 0 NOT NULL,
    found_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT reorgs_depth_check CHECK ((depth > 0)),
    CONSTRAINT reorgs_fork_block_check CHECK ((fork_block >= 0)),
    CONSTRAINT reorgs_new_hash_check CHECK ((octet_length(new_hash) = 32)),
    CONSTRAINT reorgs_old_hash_check CHECK ((octet_length(old_hash) = 32)),
    CONSTRAINT reorgs_versions_check CHECK ((versions >= 0))
);
ALTER TABLE hot.reorgs ALTER COLUMN reorg_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME hot.reorgs_reorg_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE hot.streams (
    dataset_uuid uuid NOT NULL,
    config_hash text NOT NULL,
    blocks int8multirange DEFAULT '{}'::int8multirange NOT NULL
);
CREATE TABLE hot.transactions (
    dataset_uuid uuid NOT NULL,
    block_number bigint NOT NULL,
    block_timestamp timestamp with time zone NOT NULL,
    transaction_index bigint NOT NULL,
    transaction_hash bytea,
    nonce bigint,
    from_address bytea,
    to_address bytea,
    value_binary bytea,
    value_string text,
    value_f64 double precision,
    input bytea,
    gas_limit bigint,
    gas_used bigint,
    gas_price numeric(38,0),
    transaction_type bigint,
    max_priority_fee_per_gas numeric(38,0),
    max_fee_per_gas numeric(38,0),
    success boolean,
    n_input_bytes bigint,
    n_input_zero_bytes bigint,
    n_input_nonzero_bytes bigint,
    n_rlp_bytes bigint,
    block_hash bytea NOT NULL,
    "timestamp" bigint,
    chain_id bigint,
    CONSTRAINT transactions_block_hash_check CHECK ((octet_length(block_hash) = 32)),
    CONSTRAINT transactions_from_address_check CHECK ((octet_length(from_address) = 20)),
    CONSTRAINT transactions_to_address_check CHECK ((octet_length(to_address) = 20)),
    CONSTRAINT transactions_transaction_hash_check CHECK ((octet_length(transaction_hash) = 32)),
    CONSTRAINT transactions_value_binary_check CHECK ((octet_length(value_binary) = 32))
)
WITH (autovacuum_vacuum_scale_factor='0.05');
CREATE TABLE trace.attempts (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    lease_token uuid NOT NULL,
    run_id text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    error text,
    CONSTRAINT attempts_attempt_check CHECK ((attempt > 0)),
    CONSTRAINT attempts_state_check CHECK ((state = ANY (ARRAY['running'::text, 'committed'::text, 'confirmed'::text, 'failed'::text, 'expired'::text])))
);
CREATE TABLE trace.batches (
    batch_id uuid NOT NULL,
    job_id uuid NOT NULL,
    keys text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    receipts text[] DEFAULT '{}'::text[] NOT NULL,
    tasks integer DEFAULT 0 NOT NULL,
    launched_at timestamp with time zone,
    CONSTRAINT batches_keys_check CHECK ((cardinality(keys) > 0))
);
CREATE TABLE trace.changes (
    xid xid8 DEFAULT GREATEST(pg_current_xact_id(), (((((pg_snapshot_xmax(pg_current_snapshot()))::text)::bigint - 1))::text)::xid8) NOT NULL,
    change_id bigint NOT NULL,
    kind text NOT NULL,
    dataset_uuid uuid NOT NULL,
    block_range int8range NOT NULL,
    generation integer,
    dataset_version uuid,
    layout_id uuid,
    reason text,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    block_hash bytea,
    CONSTRAINT changes_block_hash_check CHECK ((octet_length(block_hash) = 32)),
    CONSTRAINT changes_block_range_check CHECK ((NOT isempty(block_range))),
    CONSTRAINT changes_kind_check CHECK ((kind = ANY (ARRAY['committed'::text, 'invalidated'::text, 'compacted'::text, 'hot'::text, 'pruned'::text])))
);
ALTER TABLE trace.changes ALTER COLUMN change_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME trace.changes_change_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE trace.changes_floor (
    only_row boolean DEFAULT true NOT NULL,
    xid xid8 NOT NULL,
    change_id bigint NOT NULL,
    CONSTRAINT changes_floor_only_row_check CHECK (only_row)
);
CREATE TABLE trace.compactions (
    dataset_uuid uuid NOT NULL,
    block_window int8range NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    lease_token uuid,
    lease_expires_at timestamp with time zone,
    not_before timestamp with time zone DEFAULT now() NOT NULL,
    error text,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT compactions_attempt_check CHECK ((attempt >= 0)),
    CONSTRAINT compactions_block_window_check CHECK ((NOT isempty(block_window))),
    CONSTRAINT compactions_check CHECK (((lease_token IS NULL) = (lease_expires_at IS NULL))),
    CONSTRAINT compactions_failures_check CHECK ((failures >= 0))
);
CREATE TABLE trace.dataset_versions (
    dataset_version uuid NOT NULL,
    dataset_uuid uuid NOT NULL,
    block_range int8range NOT NULL,
    generation integer NOT NULL,
    visible boolean DEFAULT true NOT NULL,
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    config_hash text NOT NULL,
    storage_ref text NOT NULL,
    manifest_key text NOT NULL,
    manifest_sha256 text NOT NULL,
    content_digest text NOT NULL,
    row_count bigint NOT NULL,
    byte_count bigint NOT NULL,
    schema_json jsonb NOT NULL,
    verification jsonb NOT NULL,
    metrics jsonb DEFAULT '{}'::jsonb NOT NULL,
    committed_at timestamp with time zone DEFAULT now() NOT NULL,
    hidden_at timestamp with time zone,
    swept_at timestamp with time zone,
    first_parent_hash bytea,
    last_block_hash bytea,
    form smallint DEFAULT 1 NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    CONSTRAINT dataset_versions_block_range_check CHECK ((NOT isempty(block_range))),
    CONSTRAINT dataset_versions_byte_count_check CHECK ((byte_count >= 0)),
    CONSTRAINT dataset_versions_content_digest_check CHECK ((content_digest ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT dataset_versions_first_parent_hash_check CHECK ((octet_length(first_parent_hash) = 32)),
    CONSTRAINT dataset_versions_form_check CHECK ((form > 0)),
    CONSTRAINT dataset_versions_generation_check CHECK ((generation >= 0)),
    CONSTRAINT dataset_versions_hidden CHECK ((visible = (hidden_at IS NULL))),
    CONSTRAINT dataset_versions_last_block_hash_check CHECK ((octet_length(last_block_hash) = 32)),
    CONSTRAINT dataset_versions_manifest_sha256_check CHECK ((manifest_sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT dataset_versions_row_count_check CHECK ((row_count >= 0)),
    CONSTRAINT dataset_versions_swept CHECK (((swept_at IS NULL) OR (NOT visible))),
    CONSTRAINT dataset_versions_times CHECK ((((first_time IS NULL) = (last_time IS NULL)) AND (first_time <= last_time)))
);
CREATE TABLE trace.datasets (
    dataset_uuid uuid NOT NULL,
    org_id uuid NOT NULL,
    chain_id bigint NOT NULL,
    dataset_key text NOT NULL,
    kind text NOT NULL,
    source text NOT NULL,
    parameters jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT datasets_chain_id_check CHECK ((chain_id > 0)),
    CONSTRAINT datasets_kind_check CHECK ((kind = ANY (ARRAY['stream'::text, 'derived'::text])))
);
CREATE TABLE trace.endpoints (
    rpc_pool text NOT NULL,
    fingerprint text NOT NULL,
    name text NOT NULL,
    lies bigint DEFAULT 0 NOT NULL,
    score double precision DEFAULT 0 NOT NULL,
    lied_at timestamp with time zone,
    reason text,
    CONSTRAINT endpoints_fingerprint_check CHECK ((fingerprint ~ '^[0-9a-f]{16}$'::text)),
    CONSTRAINT endpoints_lies_check CHECK ((lies >= 0)),
    CONSTRAINT endpoints_score_check CHECK ((score >= (0)::double precision))
);
CREATE TABLE trace.file_summaries (
    file_key text NOT NULL,
    column_name text NOT NULL,
    hashes smallint NOT NULL,
    summary bytea NOT NULL,
    CONSTRAINT file_summaries_hashes_check CHECK (((hashes >= 1) AND (hashes <= 16))),
    CONSTRAINT file_summaries_summary_check CHECK (((octet_length(summary) >= 8) AND (octet_length(summary) <= 65536)))
);
ALTER TABLE ONLY trace.file_summaries ALTER COLUMN summary SET STORAGE EXTERNAL;
CREATE TABLE trace.files (
    file_key text NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    row_count bigint NOT NULL,
    min_block bigint,
    max_block bigint,
    etag text,
    layout_id uuid,
    masked_blocks int8multirange DEFAULT '{}'::int8multirange NOT NULL,
    CONSTRAINT files_bytes_check CHECK ((bytes > 0)),
    CONSTRAINT files_etag_check CHECK ((etag <> ''::text)),
    CONSTRAINT files_row_count_check CHECK ((row_count >= 0)),
    CONSTRAINT files_sha256_check CHECK ((sha256 ~ '^[0-9a-f]{64}$'::text))
);
CREATE TABLE trace.gateway_beats (
    gateway uuid NOT NULL,
    fingerprint text NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT gateway_beats_fingerprint_check CHECK ((fingerprint ~ '^[0-9a-f]{16}$'::text))
);
CREATE TABLE trace.hash_indexes (
    layout_id uuid NOT NULL,
    object_key text NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    row_count bigint NOT NULL,
    etag text,
    CONSTRAINT hash_indexes_bytes_check CHECK ((bytes > 0)),
    CONSTRAINT hash_indexes_etag_check CHECK ((etag <> ''::text)),
    CONSTRAINT hash_indexes_row_count_check CHECK ((row_count >= 0)),
    CONSTRAINT hash_indexes_sha256_check CHECK ((sha256 ~ '^[0-9a-f]{64}$'::text))
);
CREATE TABLE trace.head_observations (
    chain_id bigint NOT NULL,
    rpc_pool text NOT NULL,
    latest bigint,
    finalized bigint,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    observed_at timestamp with time zone,
    org_id uuid NOT NULL,
    asked_at timestamp with time zone DEFAULT now() NOT NULL,
    error text,
    finality_blocks bigint NOT NULL,
    CONSTRAINT head_observations_finality_blocks_check CHECK ((finality_blocks >= '-1'::integer)),
    CONSTRAINT head_observations_finalized_check CHECK ((finalized >= 0)),
    CONSTRAINT head_observations_latest_check CHECK ((latest >= 0)),
    CONSTRAINT head_observations_whole CHECK ((((latest IS NULL) = (finalized IS NULL)) AND ((latest IS NULL) = (observed_at IS NULL))))
);
CREATE TABLE trace.invalidations (
    invalidation_id bigint NOT NULL,
    dataset_version uuid NOT NULL,
    reason text NOT NULL,
    invalidated_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE trace.invalidations ALTER COLUMN invalidation_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME trace.invalidations_invalidation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE trace.jobs (
    job_id uuid NOT NULL,
    org_id uuid NOT NULL,
    name text NOT NULL,
    chain_id bigint NOT NULL,
    mode text NOT NULL,
    spec jsonb NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT jobs_chain_id_check CHECK ((chain_id > 0)),
    CONSTRAINT jobs_mode_check CHECK ((mode = ANY (ARRAY['fixed_target'::text, 'follow_head'::text]))),
    CONSTRAINT jobs_name_check CHECK ((name ~ '^[a-z][a-z0-9_]{0,63}$'::text))
);
CREATE TABLE trace.layout_attempts (
    layout_id uuid NOT NULL,
    dataset_uuid uuid NOT NULL,
    block_window int8range NOT NULL,
    planned_bytes bigint DEFAULT 0 NOT NULL,
    written_bytes bigint DEFAULT 0 NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT layout_attempts_block_window_check CHECK ((NOT isempty(block_window))),
    CONSTRAINT layout_attempts_planned_bytes_check CHECK ((planned_bytes >= 0)),
    CONSTRAINT layout_attempts_written_bytes_check CHECK ((written_bytes >= 0))
);
CREATE TABLE trace.layouts (
    layout_id uuid NOT NULL,
    dataset_uuid uuid NOT NULL,
    block_window int8range NOT NULL,
    manifest_key text NOT NULL,
    manifest_sha256 text NOT NULL,
    row_count bigint NOT NULL,
    byte_count bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT layouts_block_window_check CHECK ((NOT isempty(block_window))),
    CONSTRAINT layouts_byte_count_check CHECK ((byte_count >= 0)),
    CONSTRAINT layouts_manifest_sha256_check CHECK ((manifest_sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT layouts_row_count_check CHECK ((row_count >= 0))
);
CREATE TABLE trace.outbox (
    outbox_id uuid NOT NULL,
    kind text NOT NULL,
    task_id uuid NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    sent_at timestamp with time zone,
    available_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT outbox_kind_check CHECK ((kind = ANY (ARRAY['task_wakeup'::text, 'range_committed'::text])))
);
CREATE TABLE trace.query_log (
    query_id uuid NOT NULL,
    org_id uuid NOT NULL,
    token_id uuid,
    token_name text,
    format text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    deadline_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    snapshot text,
    datasets jsonb DEFAULT '{}'::jsonb NOT NULL,
    rows bigint,
    bytes bigint,
    CONSTRAINT query_log_bytes_check CHECK ((bytes >= 0)),
    CONSTRAINT query_log_check CHECK (((ended_at IS NULL) = (outcome IS NULL))),
    CONSTRAINT query_log_format_check CHECK ((format = ANY (ARRAY['json'::text, 'arrow'::text, 'csv'::text, 'parquet'::text]))),
    CONSTRAINT query_log_outcome_check CHECK ((outcome = ANY (ARRAY['done'::text, 'truncated'::text, 'denied'::text, 'busy'::text, 'refused'::text, 'timeout'::text, 'failed'::text, 'cancelled'::text, 'broken'::text]))),
    CONSTRAINT query_log_rows_check CHECK ((rows >= 0))
);
CREATE TABLE trace.query_tokens (
    token_id uuid DEFAULT gen_random_uuid() NOT NULL,
    org_id uuid NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    token_hash bytea NOT NULL,
    grants text[],
    max_queries integer,
    queries_per_minute integer,
    made_by uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT query_tokens_check CHECK (((made_by IS NOT NULL) = (kind = 'session'::text))),
    CONSTRAINT query_tokens_check1 CHECK (((kind = 'token'::text) OR (expires_at IS NOT NULL))),
    CONSTRAINT query_tokens_grants_check CHECK (((cardinality(grants) >= 1) AND (cardinality(grants) <= 1000))),
    CONSTRAINT query_tokens_kind_check CHECK ((kind = ANY (ARRAY['token'::text, 'link'::text, 'session'::text]))),
    CONSTRAINT query_tokens_max_queries_check CHECK ((max_queries > 0)),
    CONSTRAINT query_tokens_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100))),
    CONSTRAINT query_tokens_queries_per_minute_check CHECK ((queries_per_minute > 0)),
    CONSTRAINT query_tokens_token_hash_check CHECK ((octet_length(token_hash) = 32))
);
CREATE TABLE trace.queue_dead (
    message_id bigint NOT NULL,
    body text NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    deliveries integer NOT NULL,
    died_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT queue_dead_deliveries_check CHECK ((deliveries >= 0))
);
CREATE TABLE trace.queue_messages (
    message_id bigint NOT NULL,
    body text NOT NULL,
    enqueued_at timestamp with time zone DEFAULT now() NOT NULL,
    visible_at timestamp with time zone DEFAULT now() NOT NULL,
    receipt uuid,
    deliveries integer DEFAULT 0 NOT NULL,
    CONSTRAINT queue_messages_deliveries_check CHECK ((deliveries >= 0))
);
ALTER TABLE trace.queue_messages ALTER COLUMN message_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME trace.queue_messages_message_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE trace.run_beats (
    run_id text NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE trace.streams (
    dataset_uuid uuid NOT NULL,
    job_id uuid NOT NULL,
    rpc_pool text NOT NULL,
    chunk_size integer NOT NULL,
    max_inflight integer NOT NULL,
    columns text[] NOT NULL,
    config_hash text NOT NULL,
    verify text NOT NULL,
    options jsonb NOT NULL,
    from_block bigint NOT NULL,
    to_block bigint,
    eligible_end bigint,
    next_block bigint NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    blocked_reason text,
    halted_reason text,
    form smallint DEFAULT 1 NOT NULL,
    cold_end bigint DEFAULT 0 NOT NULL,
    planned_from bigint DEFAULT 0 NOT NULL,
    CONSTRAINT streams_check CHECK ((to_block > from_block)),
    CONSTRAINT streams_chunk_size_check CHECK ((chunk_size > 0)),
    CONSTRAINT streams_cold_end_check CHECK ((cold_end >= 0)),
    CONSTRAINT streams_form_check CHECK ((form > 0)),
    CONSTRAINT streams_from_block_check CHECK ((from_block >= 0)),
    CONSTRAINT streams_max_inflight_check CHECK ((max_inflight > 0)),
    CONSTRAINT streams_planned_from_check CHECK ((planned_from >= 0)),
    CONSTRAINT streams_verify_check CHECK ((verify = ANY (ARRAY['full'::text, 'require_full'::text, 'structural'::text, 'off'::text])))
);
CREATE TABLE trace.tasks (
    task_id uuid NOT NULL,
    dataset_uuid uuid NOT NULL,
    block_range int8range NOT NULL,
    config_hash text NOT NULL,
    generation integer DEFAULT 0 NOT NULL,
    state text DEFAULT 'queued'::text NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    lease_token uuid,
    lease_expires_at timestamp with time zone,
    batch_id uuid,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    expiries integer DEFAULT 0 NOT NULL,
    not_before timestamp with time zone DEFAULT now() NOT NULL,
    wake_seq integer DEFAULT 0 NOT NULL,
    woken_at timestamp with time zone,
    CONSTRAINT tasks_attempt_check CHECK ((attempt >= 0)),
    CONSTRAINT tasks_block_range_check CHECK (((NOT isempty(block_range)) AND lower_inc(block_range) AND (NOT upper_inc(block_range)))),
    CONSTRAINT tasks_check CHECK (((state = 'running'::text) = ((lease_token IS NOT NULL) AND (lease_expires_at IS NOT NULL)))),
    CONSTRAINT tasks_expiries_check CHECK ((expiries >= 0)),
    CONSTRAINT tasks_failures_check CHECK ((failures >= 0)),
    CONSTRAINT tasks_generation_check CHECK ((generation >= 0)),
    CONSTRAINT tasks_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'committed'::text, 'failed'::text, 'dead'::text, 'superseded'::text]))),
    CONSTRAINT tasks_wake_seq_check CHECK ((wake_seq >= 0))
);
CREATE TABLE trace.unreliable_methods (
    rpc_pool text NOT NULL,
    fingerprint text NOT NULL,
    method text NOT NULL,
    name text NOT NULL,
    reason text NOT NULL,
    noted_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT unreliable_methods_fingerprint_check CHECK ((fingerprint ~ '^[0-9a-f]{16}$'::text)),
    CONSTRAINT unreliable_methods_method_check CHECK ((method <> ''::text))
);
CREATE TABLE trace.version_files (
    dataset_version uuid NOT NULL,
    file_key text NOT NULL,
    replaced_at timestamp with time zone
);
CREATE TABLE trace.visible_totals (
    dataset_uuid uuid NOT NULL,
    level text NOT NULL,
    ranges bigint NOT NULL,
    row_count bigint NOT NULL,
    byte_count bigint NOT NULL,
    blocks int8multirange NOT NULL,
    CONSTRAINT visible_totals_byte_count_check CHECK ((byte_count >= 0)),
    CONSTRAINT visible_totals_ranges_check CHECK ((ranges >= 0)),
    CONSTRAINT visible_totals_row_count_check CHECK ((row_count >= 0))
);
ALTER TABLE ONLY hot.blocks
    ADD CONSTRAINT blocks_dataset_uuid_block_hash_key UNIQUE (dataset_uuid, block_hash);
ALTER TABLE ONLY hot.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (dataset_uuid, block_number);
ALTER TABLE ONLY hot.chain
    ADD CONSTRAINT chain_pkey PRIMARY KEY (org_id, chain_id, block_number);
ALTER TABLE ONLY hot.followers
    ADD CONSTRAINT followers_pkey PRIMARY KEY (org_id, chain_id);
ALTER TABLE ONLY hot.heads
    ADD CONSTRAINT heads_pkey PRIMARY KEY (org_id, chain_id, tag);
ALTER TABLE ONLY hot.logs
    ADD CONSTRAINT logs_dataset_uuid_block_hash_log_index_key UNIQUE (dataset_uuid, block_hash, log_index);
ALTER TABLE ONLY hot.logs
    ADD CONSTRAINT logs_pkey PRIMARY KEY (dataset_uuid, block_number, log_index);
ALTER TABLE ONLY hot.reorgs
    ADD CONSTRAINT reorgs_pkey PRIMARY KEY (reorg_id);
ALTER TABLE ONLY hot.streams
    ADD CONSTRAINT streams_pkey PRIMARY KEY (dataset_uuid);
ALTER TABLE ONLY hot.transactions
    ADD CONSTRAINT transactions_dataset_uuid_block_hash_transaction_index_key UNIQUE (dataset_uuid, block_hash, transaction_index);
ALTER TABLE ONLY hot.transactions
    ADD CONSTRAINT transactions_pkey PRIMARY KEY (dataset_uuid, block_number, transaction_index);
ALTER TABLE ONLY trace.attempts
    ADD CONSTRAINT attempts_lease_token_key UNIQUE (lease_token);
ALTER TABLE ONLY trace.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (task_id, attempt);
ALTER TABLE ONLY trace.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (batch_id);
ALTER TABLE ONLY trace.changes_floor
    ADD CONSTRAINT changes_floor_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY trace.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (xid, change_id);
ALTER TABLE ONLY trace.compactions
    ADD CONSTRAINT compactions_pkey PRIMARY KEY (dataset_uuid, block_window);
ALTER TABLE ONLY trace.dataset_versions
    ADD CONSTRAINT dataset_versions_dataset_uuid_block_range_excl EXCLUDE USING gist (dataset_uuid WITH =, block_range WITH &&) WHERE (visible);
ALTER TABLE ONLY trace.dataset_versions
    ADD CONSTRAINT dataset_versions_pkey PRIMARY KEY (dataset_version);
ALTER TABLE ONLY trace.dataset_versions
    ADD CONSTRAINT dataset_versions_task_id_attempt_key UNIQUE (task_id, attempt);
ALTER TABLE ONLY trace.datasets
    ADD CONSTRAINT datasets_pkey PRIMARY KEY (dataset_uuid);
ALTER TABLE ONLY trace.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (rpc_pool, fingerprint);
ALTER TABLE ONLY trace.file_summaries
    ADD CONSTRAINT file_summaries_pkey PRIMARY KEY (file_key, column_name);
ALTER TABLE ONLY trace.files
    ADD CONSTRAINT files_pkey PRIMARY KEY (file_key);
ALTER TABLE ONLY trace.gateway_beats
    ADD CONSTRAINT gateway_beats_pkey PRIMARY KEY (gateway, fingerprint);
ALTER TABLE ONLY trace.hash_indexes
    ADD CONSTRAINT hash_indexes_object_key_key UNIQUE (object_key);
ALTER TABLE ONLY trace.hash_indexes
    ADD CONSTRAINT hash_indexes_pkey PRIMARY KEY (layout_id);
ALTER TABLE ONLY trace.head_observations
    ADD CONSTRAINT head_observations_pkey PRIMARY KEY (org_id, chain_id, rpc_pool, finality_blocks);
ALTER TABLE ONLY trace.invalidations
    ADD CONSTRAINT invalidations_pkey PRIMARY KEY (invalidation_id);
ALTER TABLE ONLY trace.jobs
    ADD CONSTRAINT jobs_org_id_name_key UNIQUE (org_id, name);
ALTER TABLE ONLY trace.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY trace.layout_attempts
    ADD CONSTRAINT layout_attempts_pkey PRIMARY KEY (layout_id);
ALTER TABLE ONLY trace.layouts
    ADD CONSTRAINT layouts_manifest_key_key UNIQUE (manifest_key);
ALTER TABLE ONLY trace.layouts
    ADD CONSTRAINT layouts_pkey PRIMARY KEY (layout_id);
ALTER TABLE ONLY trace.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (outbox_id);
ALTER TABLE ONLY trace.query_log
    ADD CONSTRAINT query_log_pkey PRIMARY KEY (query_id);
ALTER TABLE ONLY trace.query_tokens
    ADD CONSTRAINT query_tokens_pkey PRIMARY KEY (token_id);
ALTER TABLE ONLY trace.query_tokens
    ADD CONSTRAINT query_tokens_token_hash_key UNIQUE (token_hash);
ALTER TABLE ONLY trace.queue_dead
    ADD CONSTRAINT queue_dead_pkey PRIMARY KEY (message_id);
ALTER TABLE ONLY trace.queue_messages
    ADD CONSTRAINT queue_messages_pkey PRIMARY KEY (message_id);
ALTER TABLE ONLY trace.queue_messages
    ADD CONSTRAINT queue_messages_receipt_key UNIQUE (receipt);
ALTER TABLE ONLY trace.run_beats
    ADD CONSTRAINT run_beats_pkey PRIMARY KEY (run_id);
ALTER TABLE ONLY trace.streams
    ADD CONSTRAINT streams_pkey PRIMARY KEY (dataset_uuid);
ALTER TABLE ONLY trace.tasks
    ADD CONSTRAINT tasks_dataset_uuid_block_range_excl EXCLUDE USING gist (dataset_uuid WITH =, block_range WITH &&) WHERE ((state <> 'superseded'::text));
ALTER TABLE ONLY trace.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (task_id);
ALTER TABLE ONLY trace.unreliable_methods
    ADD CONSTRAINT unreliable_methods_pkey PRIMARY KEY (rpc_pool, fingerprint, method);
ALTER TABLE ONLY trace.version_files
    ADD CONSTRAINT version_files_pkey PRIMARY KEY (dataset_version, file_key);
ALTER TABLE ONLY trace.visible_totals
    ADD CONSTRAINT visible_totals_pkey PRIMARY KEY (dataset_uuid, level);
CREATE INDEX logs_address ON hot.logs USING btree (dataset_uuid, address, block_number);
CREATE INDEX logs_topic0 ON hot.logs USING btree (dataset_uuid, topic0, block_number);
CREATE INDEX logs_transaction_hash ON hot.logs USING btree (dataset_uuid, transaction_hash, block_number);
CREATE INDEX reorgs_by_chain ON hot.reorgs USING btree (org_id, chain_id, reorg_id);
CREATE INDEX transactions_transaction_hash ON hot.transactions USING btree (dataset_uuid, transaction_hash, block_number);
CREATE INDEX attempts_ended ON trace.attempts USING btree (ended_at) WHERE (state = ANY (ARRAY['failed'::text, 'expired'::text]));
CREATE INDEX batches_open ON trace.batches USING btree (created_at) WHERE (closed_at IS NULL);
CREATE UNIQUE INDEX datasets_one_stream_per_key ON trace.datasets USING btree (org_id, chain_id, dataset_key) WHERE (kind = 'stream'::text);
CREATE INDEX files_by_layout ON trace.files USING btree (layout_id) WHERE (layout_id IS NOT NULL);
CREATE INDEX gateway_beats_by_endpoint ON trace.gateway_beats USING btree (fingerprint, beat_at);
CREATE INDEX invalidations_by_version ON trace.invalidations USING btree (dataset_version);
CREATE INDEX layout_attempts_by_window ON trace.layout_attempts USING btree (dataset_uuid, lower(block_window));
CREATE INDEX layouts_by_window ON trace.layouts USING btree (dataset_uuid, lower(block_window));
CREATE INDEX outbox_sent ON trace.outbox USING btree (sent_at) WHERE (kind = 'task_wakeup'::text);
CREATE INDEX outbox_unsent ON trace.outbox USING btree (kind, available_at) WHERE (sent_at IS NULL);
CREATE INDEX query_log_by_time ON trace.query_log USING btree (started_at);
CREATE UNIQUE INDEX query_tokens_by_name ON trace.query_tokens USING btree (org_id, name) WHERE ((kind = 'token'::text) AND (revoked_at IS NULL));
CREATE INDEX queue_messages_visible ON trace.queue_messages USING btree (visible_at, message_id);
CREATE INDEX running_queries ON trace.query_log USING btree (deadline_at) WHERE (ended_at IS NULL);
CREATE INDEX streams_by_job ON trace.streams USING btree (job_id);
CREATE INDEX tasks_by_batch ON trace.tasks USING btree (batch_id) WHERE (batch_id IS NOT NULL);
CREATE INDEX tasks_by_dataset_state ON trace.tasks USING btree (dataset_uuid, state);
CREATE INDEX tasks_by_start ON trace.tasks USING btree (dataset_uuid, lower(block_range));
CREATE INDEX tasks_leased ON trace.tasks USING btree (dataset_uuid) WHERE (lease_expires_at IS NOT NULL);
CREATE INDEX tasks_queued ON trace.tasks USING btree (dataset_uuid, lower(block_range)) WHERE (state = ANY (ARRAY['queued'::text, 'running'::text]));
CREATE INDEX tasks_unfinished ON trace.tasks USING btree (woken_at) WHERE (state = ANY (ARRAY['queued'::text, 'running'::text]));
CREATE INDEX tasks_with_error ON trace.tasks USING btree (dataset_uuid) WHERE (error IS NOT NULL);
CREATE INDEX version_files_by_file ON trace.version_files USING btree (file_key);
CREATE INDEX version_files_replaced ON trace.version_files USING btree (replaced_at) WHERE (replaced_at IS NOT NULL);
CREATE INDEX versions_by_commit ON trace.dataset_versions USING btree (dataset_uuid, committed_at);
CREATE INDEX versions_by_end ON trace.dataset_versions USING btree (upper(block_range)) WHERE visible;
CREATE INDEX versions_by_first ON trace.dataset_versions USING btree (lower(block_range)) WHERE visible;
CREATE INDEX versions_by_start ON trace.dataset_versions USING btree (dataset_uuid, lower(block_range));
CREATE INDEX versions_lowered ON trace.dataset_versions USING btree (dataset_uuid, committed_at) WHERE (visible AND (((verification -> 'lowered'::text) -> 0) IS NOT NULL));
CREATE INDEX versions_replaced ON trace.dataset_versions USING btree (hidden_at) WHERE ((NOT visible) AND (swept_at IS NULL));
CREATE INDEX versions_visible ON trace.dataset_versions USING btree (dataset_uuid, lower(block_range)) INCLUDE (block_range, dataset_version, form, row_count, first_time, last_time) WHERE visible;
CREATE CONSTRAINT TRIGGER attempts_committed_with_publication AFTER INSERT OR UPDATE OF state ON trace.attempts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.state = 'committed'::text)) EXECUTE FUNCTION trace.require_publication();
CREATE TRIGGER versions_changed AFTER UPDATE ON trace.dataset_versions REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION trace.keep_visible_totals();
CREATE TRIGGER versions_hidden AFTER UPDATE ON trace.dataset_versions REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION trace.mask_hidden_versions();
CREATE TRIGGER versions_shown AFTER INSERT ON trace.dataset_versions REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION trace.keep_visible_totals();
ALTER TABLE ONLY hot.streams
    ADD CONSTRAINT streams_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.streams(dataset_uuid);
ALTER TABLE ONLY trace.attempts
    ADD CONSTRAINT attempts_task_id_fkey FOREIGN KEY (task_id) REFERENCES trace.tasks(task_id);
ALTER TABLE ONLY trace.batches
    ADD CONSTRAINT batches_job_id_fkey FOREIGN KEY (job_id) REFERENCES trace.jobs(job_id);
ALTER TABLE ONLY trace.changes
    ADD CONSTRAINT changes_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
ALTER TABLE ONLY trace.compactions
    ADD CONSTRAINT compactions_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
ALTER TABLE ONLY trace.dataset_versions
    ADD CONSTRAINT dataset_versions_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
ALTER TABLE ONLY trace.dataset_versions
    ADD CONSTRAINT dataset_versions_task_id_attempt_fkey FOREIGN KEY (task_id, attempt) REFERENCES trace.attempts(task_id, attempt);
ALTER TABLE ONLY trace.file_summaries
    ADD CONSTRAINT file_summaries_file_key_fkey FOREIGN KEY (file_key) REFERENCES trace.files(file_key) ON DELETE CASCADE;
ALTER TABLE ONLY trace.files
    ADD CONSTRAINT files_layout_id_fkey FOREIGN KEY (layout_id) REFERENCES trace.layouts(layout_id);
ALTER TABLE ONLY trace.hash_indexes
    ADD CONSTRAINT hash_indexes_layout_id_fkey FOREIGN KEY (layout_id) REFERENCES trace.layouts(layout_id) ON DELETE CASCADE;
ALTER TABLE ONLY trace.invalidations
    ADD CONSTRAINT invalidations_dataset_version_fkey FOREIGN KEY (dataset_version) REFERENCES trace.dataset_versions(dataset_version);
ALTER TABLE ONLY trace.layout_attempts
    ADD CONSTRAINT layout_attempts_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
ALTER TABLE ONLY trace.layouts
    ADD CONSTRAINT layouts_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
ALTER TABLE ONLY trace.outbox
    ADD CONSTRAINT outbox_task_id_fkey FOREIGN KEY (task_id) REFERENCES trace.tasks(task_id);
ALTER TABLE ONLY trace.query_tokens
    ADD CONSTRAINT query_tokens_made_by_fkey FOREIGN KEY (made_by) REFERENCES trace.query_tokens(token_id) ON DELETE CASCADE;
ALTER TABLE ONLY trace.streams
    ADD CONSTRAINT streams_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
ALTER TABLE ONLY trace.streams
    ADD CONSTRAINT streams_job_id_fkey FOREIGN KEY (job_id) REFERENCES trace.jobs(job_id);
ALTER TABLE ONLY trace.tasks
    ADD CONSTRAINT tasks_batch FOREIGN KEY (batch_id) REFERENCES trace.batches(batch_id);
ALTER TABLE ONLY trace.tasks
    ADD CONSTRAINT tasks_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
ALTER TABLE ONLY trace.version_files
    ADD CONSTRAINT version_files_dataset_version_fkey FOREIGN KEY (dataset_version) REFERENCES trace.dataset_versions(dataset_version);
ALTER TABLE ONLY trace.version_files
    ADD CONSTRAINT version_files_file_key_fkey FOREIGN KEY (file_key) REFERENCES trace.files(file_key);
ALTER TABLE ONLY trace.visible_totals
    ADD CONSTRAINT visible_totals_dataset_uuid_fkey FOREIGN KEY (dataset_uuid) REFERENCES trace.datasets(dataset_uuid);
