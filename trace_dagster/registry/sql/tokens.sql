-- name: retire_expired_name
-- End an expired token of a name at the time of its expiry, so that the name is free.
update trace.query_tokens set revoked_at = expires_at
where org_id = %(org_id)s and name = %(name)s and kind = 'token' and revoked_at is null and expires_at <= now();

-- name: insert_token
-- Store a token or a link, unless a token of this name is valid.
insert into trace.query_tokens
    (org_id, kind, name, token_hash, grants, max_queries, queries_per_minute, expires_at)
values
    (%(org_id)s, %(kind)s, %(name)s, %(token_hash)s, %(grants)s, %(max_queries)s, %(queries_per_minute)s,
     now() + make_interval(secs => %(expires_in_seconds)s))
on conflict (org_id, name) where kind = 'token' and revoked_at is null do nothing;

-- name: use_link
-- Use up a link that is valid. Of two uses at a time, one gets the row.
update trace.query_tokens set used_at = now()
where org_id = %(org_id)s and token_hash = %(token_hash)s and kind = 'link' and used_at is null and revoked_at is null
  and expires_at > now()
returning token_id;

-- name: insert_session
-- Store the session that a link begins, with the link's name, grants and limits.
insert into trace.query_tokens
    (org_id, kind, name, token_hash, grants, max_queries, queries_per_minute, made_by, expires_at)
select org_id, 'session', name, %(token_hash)s, grants, max_queries, queries_per_minute, token_id,
       now() + make_interval(secs => %(expires_in_seconds)s)
from trace.query_tokens where token_id = %(link_id)s;

-- name: caller_of_token
-- The valid token or session of a hash. A revoked link ends the sessions that it began.
select t.token_id, t.kind, t.name, t.grants, t.max_queries, t.queries_per_minute
from trace.query_tokens t left join trace.query_tokens l on l.token_id = t.made_by
where t.org_id = %(org_id)s and t.token_hash = %(token_hash)s and t.kind in ('token', 'session')
  and t.revoked_at is null and l.revoked_at is null and (t.expires_at is null or t.expires_at > now());

-- name: revoked_of_tokens
-- Those of some tokens and sessions that are revoked, or whose link is. One that ended at its expiry is not among them.
select t.token_id from trace.query_tokens t left join trace.query_tokens l on l.token_id = t.made_by
where t.token_id = any(%(token_ids)s)
  and (t.revoked_at <> coalesce(t.expires_at, 'infinity') or l.revoked_at is not null);

-- name: end_session
-- End the session of a hash.
update trace.query_tokens set revoked_at = now()
where org_id = %(org_id)s and token_hash = %(token_hash)s and kind = 'session' and revoked_at is null;

-- name: revoke_tokens
-- Revoke all tokens, links and sessions of a name that are not revoked.
update trace.query_tokens set revoked_at = now()
where org_id = %(org_id)s and name = %(name)s and revoked_at is null
returning kind, (expires_at is null or expires_at > now()) and used_at is null as was_valid;

-- name: name_was_given
-- A row if a token, link or session has this name, whether it is valid or has ended.
select 1 from trace.query_tokens where org_id = %(org_id)s and name = %(name)s limit 1;

-- name: all_tokens
-- Every token, link and session, the newest last. Of several ends the first one is its state.
select t.token_id, t.kind, t.name, t.grants, t.max_queries, t.queries_per_minute, t.created_at, t.expires_at,
       case when least(t.revoked_at, l.revoked_at) < coalesce(t.expires_at, 'infinity') then 'revoked'
            when t.used_at is not null then 'used'
            when t.expires_at <= now() then 'expired'
            else 'valid' end as state
from trace.query_tokens t left join trace.query_tokens l on l.token_id = t.made_by
where t.org_id = %(org_id)s
order by t.created_at, t.token_id;

-- name: delete_old_tokens
-- Delete links and sessions a day after their end, and tokens as long after it as the log of queries is kept.
delete from trace.query_tokens t
where least(t.expires_at, t.revoked_at)
      < now() - case when t.kind = 'token' then make_interval(days => %(days)s) else interval '1 day' end
  and not exists (
    select 1 from trace.query_tokens s
    where s.made_by = t.token_id and least(s.expires_at, s.revoked_at) >= now() - interval '1 day');
