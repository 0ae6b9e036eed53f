-- Leases by their dataset: each claim counts them. An index by state ties with those of all that is queued while the
-- statistics do not know a new job yet, and the one that was taken read all of its queued ranges.

create index tasks_leased on trace.tasks (dataset_uuid) where lease_expires_at is not null;
