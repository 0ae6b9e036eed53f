-- name: record_gateway_heartbeat
-- Record that a gateway asks an endpoint.
insert into trace.gateway_beats (gateway, fingerprint) values (%(gateway)s, %(fingerprint)s)
on conflict (gateway, fingerprint) do update set beat_at = clock_timestamp();

-- name: gateways_asking
-- Number of gateways that ask each endpoint now; one that missed three heartbeats is gone.
select fingerprint, count(*) as gateways from trace.gateway_beats
where fingerprint = any(%(fingerprints)s) and beat_at > clock_timestamp() - interval '6 seconds'
group by fingerprint;

-- name: delete_gateway_heartbeats
-- Delete the heartbeats of a gateway that ended.
delete from trace.gateway_beats where gateway = %(gateway)s;

-- name: delete_old_gateway_heartbeats
-- Delete the heartbeats of gateways that fell silent a day ago.
delete from trace.gateway_beats where beat_at < clock_timestamp() - interval '1 day';
