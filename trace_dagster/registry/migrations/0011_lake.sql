-- The lake: forms of rows, layouts of files, what a query prunes by, and the change log.

-- Rows are stored in a form that is numbered; 1 is the form before this migration. Forms are never mixed in a relation.
-- The default stays 1: a process of an earlier version that still commits does not name the form.
create function trace.lake_form() returns smallint language sql immutable as 'select 2::smallint';
alter table trace.streams add column form smallint not null default 1 check (form > 0);
alter table trace.dataset_versions
    add column form smallint not null default 1 check (form > 0),
    -- First and last block_timestamp of the rows; null if there are none.
    add column first_time timestamptz,
    add column last_time timestamptz,
    add constraint dataset_versions_times check ((first_time is null) = (last_time is null) and first_time <= last_time);
-- Opening a query reads these columns of every visible version of a dataset, so the index holds them.
drop index trace.versions_visible;
create index versions_visible on trace.dataset_versions (dataset_uuid, lower(block_range))
    include (block_range, dataset_version, form, row_count, first_time, last_time) where visible;

-- The sums are over the visible versions of the present form; there are none of it yet.
create or replace function trace.keep_visible_totals() returns trigger language plpgsql as $$
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
delete from trace.visible_totals;

-- A layout: files that hold the rows of neighbouring versions, written by one compaction of one window of blocks.
create table trace.layouts (
    layout_id       uuid primary key,
    dataset_uuid    uuid not null references trace.datasets,
    block_window    int8range not null check (not isempty(block_window)),
    manifest_key    text not null unique,
    manifest_sha256 text not null check (manifest_sha256 ~ '^[0-9a-f]{64}$'),
    row_count       bigint not null check (row_count >= 0),
    byte_count      bigint not null check (byte_count >= 0),
    created_at      timestamptz not null default now()
);
create index layouts_by_window on trace.layouts (dataset_uuid, lower(block_window));

alter table trace.files
    -- Null for a file that was written with its version.
    add column layout_id uuid references trace.layouts,
    -- Blocks of a layout's file whose rows are not visible any more: readers leave them out.
    add column masked_blocks int8multirange not null default '{}';
create index files_by_layout on trace.files (layout_id) where layout_id is not null;

-- A link that a compaction replaced stays for pinned readers, until the sweep's grace period is over.
alter table trace.version_files add column replaced_at timestamptz;
create index version_files_replaced on trace.version_files (replaced_at) where replaced_at is not null;

-- When a version stops being visible, its blocks are masked in the layout's files that hold it, in that transaction.
create function trace.mask_hidden_versions() returns trigger language plpgsql as $$
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
create trigger versions_hidden after update on trace.dataset_versions
    referencing old table as before new table as after
    for each statement execute function trace.mask_hidden_versions();

-- One row per window of blocks that a compaction holds, held or failed; the token fences it as a task's does.
create table trace.compactions (
    dataset_uuid     uuid not null references trace.datasets,
    block_window     int8range not null check (not isempty(block_window)),
    attempt          int not null default 0 check (attempt >= 0),
    failures         int not null default 0 check (failures >= 0),
    lease_token      uuid,
    lease_expires_at timestamptz,
    not_before       timestamptz not null default now(),
    error            text,
    updated_at       timestamptz not null default now(),
    primary key (dataset_uuid, block_window),
    check ((lease_token is null) = (lease_expires_at is null))
);

-- Every layout that a compaction was given to write; its id is the token of the lease. Objects of those that never
-- committed are swept by these rows, and their bytes count as written.
create table trace.layout_attempts (
    layout_id     uuid primary key,
    dataset_uuid  uuid not null references trace.datasets,
    block_window  int8range not null check (not isempty(block_window)),
    planned_bytes bigint not null default 0 check (planned_bytes >= 0),
    written_bytes bigint not null default 0 check (written_bytes >= 0),
    started_at    timestamptz not null default now(),
    ended_at      timestamptz
);
create index layout_attempts_by_window on trace.layout_attempts (dataset_uuid, lower(block_window));

-- Approximate sets of the values of a column in one layout file. A value that is not in it is not in the file.
create table trace.file_summaries (
    file_key    text not null references trace.files on delete cascade,
    column_name text not null,
    hashes      smallint not null check (hashes between 1 and 16),
    summary     bytea not null check (octet_length(summary) between 8 and 65536),
    primary key (file_key, column_name)
);

-- Summaries do not compress. Stored plain, one byte of a summary is read without the rest of it.
alter table trace.file_summaries alter column summary set storage external;

-- True if a summary may contain a value: all of its bits are set. The two numbers, 0 to 2^32 - 1, are hashes of the value
-- (trace_dagster/registry/summaries.py). Most values that are absent end at the first or second bit.
create function trace.may_contain(summary bytea, hashes smallint, first_hash bigint, second_hash bigint)
    returns boolean language plpgsql immutable strict parallel safe as $$
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

-- Objects with the sorted hash prefixes of a layout's rows and their blocks.
create table trace.hash_indexes (
    layout_id  uuid primary key references trace.layouts on delete cascade,
    object_key text not null unique,
    bytes      bigint not null check (bytes > 0),
    sha256     text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    row_count  bigint not null check (row_count >= 0),
    etag       text check (etag <> '')
);

-- What changed in the lake, written in the transaction that changed it. Readers go by (xid, change_id), and stop before
-- the lowest transaction that is still open.
create table trace.changes (
    xid             xid8 not null default pg_current_xact_id(),
    change_id       bigint generated always as identity,
    kind            text not null check (kind in ('committed', 'invalidated', 'compacted')),
    dataset_uuid    uuid not null references trace.datasets,
    block_range     int8range not null check (not isempty(block_range)),
    generation      int,
    dataset_version uuid,
    layout_id       uuid,
    reason          text,
    changed_at      timestamptz not null default now(),
    primary key (xid, change_id)
);
-- The last change that was deleted because of its age: an older cursor would miss it.
create table trace.changes_floor (
    only_row  boolean primary key default true check (only_row),
    xid       xid8 not null,
    change_id bigint not null
);
insert into trace.changes_floor (xid, change_id) values ('0', 0);
