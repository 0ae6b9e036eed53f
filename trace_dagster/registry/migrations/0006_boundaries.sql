-- Versions by their boundary alone: an index that begins with the dataset ties with others of its columns while the
-- statistics do not know a new dataset yet, and the one that was taken read all of the dataset's visible versions.

drop index trace.versions_by_end;
create index versions_by_end on trace.dataset_versions (upper(block_range)) where visible;
create index versions_by_first on trace.dataset_versions (lower(block_range)) where visible;
