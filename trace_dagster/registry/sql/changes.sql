-- name: insert_change
-- Append a change to the log, in the transaction that makes it.
insert into trace.changes (kind, dataset_uuid, block_range, generation, dataset_version, layout_id, reason)
values (%(kind)s, %(dataset_uuid)s, int8range(%(range_start)s, %(range_end)s), %(generation)s, %(dataset_version)s,
        %(layout_id)s, %(reason)s);
