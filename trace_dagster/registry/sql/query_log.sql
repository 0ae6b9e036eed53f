-- name: begin_query
-- Log that a query begins, unless its id was used before.
insert into trace.query_log (query_id, org_id, token_id, token_name, format, deadline_at)
values (%(query_id)s, %(org_id)s, %(token_id)s, %(token_name)s, %(format)s,
        clock_timestamp() + make_interval(secs => %(deadline_seconds)s))
on conflict (query_id) do nothing;

-- name: log_denial
-- Log a query without a valid token, unless the last minute has many of them.
insert into trace.query_log (query_id, org_id, format, deadline_at, ended_at, outcome)
select gen_random_uuid(), %(org_id)s, 'json', now(), clock_timestamp(), 'denied'
where (select count(*) from trace.query_log
       where started_at > clock_timestamp() - interval '1 minute' and outcome = 'denied' and org_id = %(org_id)s)
      < %(most)s;

-- name: log_snapshot
-- Log which files a query reads.
update trace.query_log set snapshot = %(snapshot)s, datasets = %(datasets)s
where query_id = %(query_id)s and ended_at is null;

-- name: end_query
-- Log how a query ended, a single time.
update trace.query_log set ended_at = clock_timestamp(), outcome = %(outcome)s, rows = %(rows)s, bytes = %(bytes)s
where query_id = %(query_id)s and ended_at is null;

-- name: running_queries
-- The queries that run, the oldest first. A query whose deadline passed is not one: its service died.
select query_id, token_name, format, started_at, deadline_at, datasets from trace.query_log
where org_id = %(org_id)s and ended_at is null and deadline_at > now()
order by started_at, query_id;

-- name: delete_old_queries
-- Delete entries of the log of queries that are older than some days, at most a number of them.
delete from trace.query_log where query_id in (
    select query_id from trace.query_log
    where started_at < now() - make_interval(days => %(days)s) and (ended_at is not null or deadline_at < now())
    order by started_at limit %(limit)s);
