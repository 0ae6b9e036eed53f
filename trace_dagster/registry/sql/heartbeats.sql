-- name: record_run_heartbeat
-- Record that a run's process is alive.
insert into trace.run_beats (run_id) values (%(run_id)s)
on conflict (run_id) do update set beat_at = clock_timestamp();

-- name: delete_run_heartbeat
-- Delete the heartbeat of a run that ended.
delete from trace.run_beats where run_id = %(run_id)s;

-- name: last_run_heartbeat
-- Time of a run's last heartbeat.
select beat_at from trace.run_beats where run_id = %(run_id)s;

-- name: delete_old_run_heartbeats
-- Delete heartbeats of dead runs, but none that run monitoring may still watch.
delete from trace.run_beats
where beat_at < now() - greatest(make_interval(secs => %(grace_seconds)s), interval '7 days');
