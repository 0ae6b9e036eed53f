-- Scale: what is committed is the mass, and nothing that runs every few seconds reads all of it.

-- Sums over the visible versions, by dataset and proven level, kept by the statements that change them.
create table trace.visible_totals (
    dataset_uuid uuid not null references trace.datasets,
    level        text not null,
    ranges       bigint not null check (ranges >= 0),
    row_count    bigint not null check (row_count >= 0),
    byte_count   bigint not null check (byte_count >= 0),
    blocks       int8multirange not null,
    primary key (dataset_uuid, level)
);

create function trace.keep_visible_totals() returns trigger language plpgsql as $$
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
              from before where visible group by 1, 2) b
        where t.dataset_uuid = b.dataset_uuid and t.level = b.level;
    end if;
    insert into trace.visible_totals as t (dataset_uuid, level, ranges, row_count, byte_count, blocks)
    select dataset_uuid, coalesce(verification ->> 'level', 'off'), count(*), sum(row_count), sum(byte_count),
           range_agg(block_range)
    from after where visible group by 1, 2
    on conflict (dataset_uuid, level) do update
    set ranges = t.ranges + excluded.ranges, row_count = t.row_count + excluded.row_count,
        byte_count = t.byte_count + excluded.byte_count, blocks = t.blocks + excluded.blocks;
    return null;
end $$;
create trigger versions_shown after insert on trace.dataset_versions
    referencing new table as after for each statement execute function trace.keep_visible_totals();
create trigger versions_changed after update on trace.dataset_versions
    referencing old table as before new table as after
    for each statement execute function trace.keep_visible_totals();

-- After the triggers: making them has locked out every commit until this migration is done.
insert into trace.visible_totals (dataset_uuid, level, ranges, row_count, byte_count, blocks)
select dataset_uuid, coalesce(verification ->> 'level', 'off'), count(*), sum(row_count), sum(byte_count),
       range_agg(block_range)
from trace.dataset_versions where visible group by 1, 2;

-- First, last and recent commits of a dataset, and the schema of its newest version.
create index versions_by_commit on trace.dataset_versions (dataset_uuid, committed_at);
-- What a sweep looks for.
create index versions_replaced on trace.dataset_versions (hidden_at) where not visible and swept_at is null;
create index attempts_ended on trace.attempts (ended_at) where state in ('failed', 'expired');
create index outbox_sent on trace.outbox (sent_at) where kind = 'task_wakeup';
-- What is not as it should be: few rows of many.
create index tasks_with_error on trace.tasks (dataset_uuid) where error is not null;
