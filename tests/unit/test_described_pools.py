"""Pools of processes that know only the gateway: it tells endpoints, quorum and limits, but no URL."""

import pytest

from tests.support.gateways import fetch, gateway
from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.gateway.routing import GatewayRouting

FIRST, SECOND = "http://127.0.0.1:9/FirstKey0123456", "http://127.0.0.1:9/SecondKey0123456"
GIVEN = {
    "TRACE_RPC_POOL_DEV_URL": f"{FIRST},{SECOND}",
    "TRACE_RPC_POOL_DEV_RPS": "60",
    "TRACE_RPC_POOL_DEV_CONCURRENCY": "4",
    "TRACE_RPC_POOL_DEV_BATCH": "7",
    "TRACE_RPC_POOL_DEV_QUORUM": "2",
}


@pytest.fixture(scope="module")
def door():
    with gateway(**GIVEN) as door:
        yield door


def routing_of(url, **more):
    return GatewayRouting(Settings.read({"TRACE_RPC_GATEWAY_URL": url, **more}))


def test_a_pool_without_a_url_is_that_of_the_gateway(door):
    routing, own = routing_of(door.url), Settings.read(GIVEN).pool("dev")
    pool = routing.named("dev")
    assert (pool.name, pool.limits, pool.quorum) == (own.name, own.limits, own.quorum)
    assert [each.fingerprint for each in pool.endpoints] == [each.fingerprint for each in own.endpoints]
    addresses = [each.address for each in routing.through(pool, frozenset({"blocks"})).endpoints]
    assert addresses == [f"{door.url}/dev/1/blocks", f"{door.url}/dev/2/blocks"]
    assert routing.for_tip(pool).endpoints[1].tip().address == f"{door.url}/dev/2/tip"


def test_no_url_is_told(door):
    status, body = fetch(f"{door.url}/dev/endpoints")
    assert status == 200
    assert b"Key0123456" not in body
    assert b"127.0.0.1" not in body


def test_the_gateways_fallback_serves_any_pool():
    with gateway(TRACE_CRYO_RPC_URL=FIRST, TRACE_RPC_POOL_X_RPS="5") as door:
        pool = routing_of(door.url).named("x")
        assert [each.url.partition("#")[0] for each in pool.endpoints] == [f"{door.url}/x/1"]
        assert pool.limits.requests_per_second == 5


def test_a_pool_with_a_url_here_is_not_asked_for():
    pool = routing_of("http://127.0.0.1:9/token-of-this-test", TRACE_RPC_POOL_DEV_URL=FIRST).named("dev")
    assert pool.urls == (FIRST,)
    assert routing_of("http://127.0.0.1:9/token-of-this-test", TRACE_CRYO_RPC_URL=FIRST).named("x").urls == (FIRST,)


@pytest.mark.parametrize(
    ("end", "more", "name", "reason"),
    [
        ("", {}, "other", r"rpc pool 'other' has no URL: set .* or the rpc gateway if .* known=dev"),
        ("x", {}, "dev", "the rpc gateway refuses the URL: .* http=404"),
        ("", {"TRACE_RPC_GATEWAY": "never"}, "dev", "rpc pool 'dev' has no URL: set TRACE_RPC_POOL_DEV_URL"),
    ],
)
def test_a_pool_that_cannot_be_had_is_refused(door, end, more, name, reason):
    with pytest.raises(InvalidInput, match=reason) as refused:
        routing_of(door.url + end, **more).named(name)
    assert "token-of-this-test" not in str(refused.value)


def test_a_pool_is_read_anew_after_a_while_and_kept_while_the_gateway_is_away(monkeypatch):
    monkeypatch.setattr("trace_dagster.gateway.described_pools.REMEMBERED_SECONDS", 0.0)
    with gateway(dev=FIRST) as door:
        port = int(door.url.split(":")[2].split("/")[0])
        routing = routing_of(door.url)
        assert len(routing.named("dev").endpoints) == 1
    assert len(routing.named("dev").endpoints) == 1
    with pytest.raises(Unavailable, match="the rpc gateway does not answer"):
        routing_of(door.url).named("dev")
    with gateway(at=port, dev=f"{FIRST},{SECOND}"):
        assert len(routing.named("dev").endpoints) == 2
