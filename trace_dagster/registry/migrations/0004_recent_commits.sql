-- The last commits of a dataset by when they were made: how fast it grows now, without reading all of them.
create index versions_by_commit on trace.dataset_versions (dataset_uuid, committed_at) where visible;
