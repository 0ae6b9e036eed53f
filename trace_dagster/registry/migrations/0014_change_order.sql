-- A change comes after every change that its transaction could see. A transaction gets its number with its first lock,
-- and may then wait for a later one: by their numbers alone, a fork would come before the commit that it undoes.
-- So ``xid`` is the newest transaction that had ended when the change was written, if that is above the change's own.
alter table trace.changes alter column xid
    set default greatest(pg_current_xact_id(), (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text::xid8);
