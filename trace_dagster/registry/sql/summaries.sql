-- name: files_without_values
-- Those of the files whose summary of a column excludes every one of the values, which are given by their two hashes.
select s.file_key
from unnest(%(file_keys)s::text[]) as wanted(file_key)
join trace.file_summaries s on s.file_key = wanted.file_key and s.column_name = %(column_name)s
where not exists (
    select from unnest(%(first_hashes)s::bigint[], %(second_hashes)s::bigint[]) as value(first_hash, second_hash)
    where trace.may_contain(s.summary, s.hashes, value.first_hash, value.second_hash)
);
