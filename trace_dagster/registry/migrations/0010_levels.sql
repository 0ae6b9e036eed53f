-- Levels: a stream may require the full proof of every block, and some ranges hold blocks below what was asked.

alter table trace.streams drop constraint streams_verify_check,
    add constraint streams_verify_check check (verify in ('full', 'require_full', 'structural', 'off'));

-- The newest ranges with blocks below the level that their stream asked for: `status` shows why.
create index versions_lowered on trace.dataset_versions (dataset_uuid, committed_at)
    where visible and verification -> 'lowered' -> 0 is not null;
