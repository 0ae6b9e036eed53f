-- The object store's ETag of each file, as it answered the upload: a listing shows whether an object is still the one
-- that was committed. Files that were committed before have none; only their size is compared.

alter table trace.files add column etag text check (etag <> '');
