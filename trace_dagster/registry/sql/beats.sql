-- name: beat_run
insert into trace.run_beats (run_id) values (%(run_id)s)
on conflict (run_id) do update set beat_at = clock_timestamp();

-- name: forget_run
delete from trace.run_beats where run_id = %(run_id)s;

-- name: last_beat
select beat_at from trace.run_beats where run_id = %(run_id)s;

-- name: delete_old_beats
-- Never one that run monitoring may still be watching.
delete from trace.run_beats
where beat_at < now() - greatest(make_interval(secs => %(grace_seconds)s), interval '7 days');
