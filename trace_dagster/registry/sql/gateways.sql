-- name: beat_gateway
insert into trace.gateway_beats (gateway, fingerprint) values (%(gateway)s, %(fingerprint)s)
on conflict (gateway, fingerprint) do update set beat_at = clock_timestamp();

-- name: gateways_asking
-- Three beats missed: gone.
select fingerprint, count(*) as gateways from trace.gateway_beats
where fingerprint = any(%(fingerprints)s) and beat_at > clock_timestamp() - interval '6 seconds'
group by fingerprint;

-- name: forget_gateway
delete from trace.gateway_beats where gateway = %(gateway)s;

-- name: delete_old_gateways
delete from trace.gateway_beats where beat_at < clock_timestamp() - interval '1 day';
