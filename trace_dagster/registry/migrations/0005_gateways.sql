-- Which gateways ask an endpoint, so that several machines share its one budget.
-- The endpoint is named by its URL's digest, as in trace.endpoints; it need not stand there.

create table trace.gateway_beats (
    gateway     uuid not null,
    fingerprint text not null check (fingerprint ~ '^[0-9a-f]{16}$'),
    beat_at     timestamptz not null default clock_timestamp(),
    primary key (gateway, fingerprint)
);
create index gateway_beats_by_endpoint on trace.gateway_beats (fingerprint, beat_at);
