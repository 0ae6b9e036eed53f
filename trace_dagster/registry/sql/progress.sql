-- name: recent_commits
-- Each dataset's last commits, found by index: their blocks, and seconds since the first of them was started.
select d.dataset_uuid, sum(upper(v.block_range) - lower(v.block_range))::bigint as blocks,
       extract(epoch from now() - min(a.started_at))::float8 as seconds
from unnest(%(dataset_uuids)s::uuid[]) as d (dataset_uuid)
cross join lateral (
    select task_id, attempt, block_range from trace.dataset_versions
    where dataset_uuid = d.dataset_uuid and visible and committed_at > now() - make_interval(secs => %(seconds)s)
    order by committed_at desc limit %(commits)s) v
join trace.attempts a on a.task_id = v.task_id and a.attempt = v.attempt
group by d.dataset_uuid;
