"""The environments of the stack's children: what each of them knows, and what it does not."""

from __future__ import annotations

import os
import subprocess

import pytest

from trace_dagster.config.local_urls import behind_gateway
from trace_dagster.config.process import bare_environment
from trace_dagster.config.settings import Settings
from trace_dagster.gateway.routing import GatewayRouting
from trace_dagster.lite.environments import (
    code_environment,
    dagster_environment,
    devchain_environment,
    follower_environment,
    gateway_variables,
    query_environment,
)
from trace_dagster.rpc import latency
from trace_dagster.rpc.pools import Endpoint, RpcPool

GATEWAY = "http://127.0.0.1:8546/t0ken-of-the-gateway"
LIMITED = "https://limited.example/v2/LimitedKey0123"
FAR = "https://far.example/v2/FarKey0123456"
NEXT_DOOR = "https://next-door.example/v2/NextDoorKey0123"
SILENT = "https://silent.example/v2/SilentKey0123456"
HERE = "http://127.0.0.1:8545/v2/HereKey0123456"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-0123",
    "TRACE_SQS_ACCESS_KEY_ID": "AKIAQUEUE0123",
    "TRACE_SQS_SECRET_ACCESS_KEY": "sqs-secret-0123",
    "TRACE_POSTGRES_URL": "postgresql://trace:pg-secret-0123@127.0.0.1/trace",
    "TRACE_RPC_GATEWAY_URL": GATEWAY,
    "TRACE_GATEWAY_TOKEN": "t0ken-of-the-gateway",
    "TRACE_CHAOS_UPSTREAM": "https://chaos.example/ChaosKey0123",
    "TRACE_RPC_POOL_LIMITED_URL": LIMITED,
    "TRACE_RPC_POOL_LIMITED_WS_URL": "wss://push.example/v2/PushKey0123456",
    "TRACE_RPC_POOL_LIMITED_RPS": "5",
    "TRACE_RPC_POOL_MIXED_URL": f"{NEXT_DOOR},{FAR}",
    "TRACE_RPC_POOL_SILENT_URL": SILENT,
    "TRACE_RPC_POOL_HERE_URL": HERE,
    "GITHUB_TOKEN": "of-another-program",
    "TRACE_WEB_PASSWORD": "open-sesame-0123",
    "TRACE_S3_QUERY_ACCESS_KEY_ID": "AKIAREADER0123",
    "TRACE_S3_QUERY_SECRET_ACCESS_KEY": "reader-secret-0123",
    "TRACE_QUERY_URL": "http://127.0.0.1:8480/of-the-service",
    "TRACE_QUERY_TOKEN": "trace_t0ken-of-the-service",
}
READ_KEY = {"TRACE_S3_QUERY_ACCESS_KEY_ID", "TRACE_S3_QUERY_SECRET_ACCESS_KEY"}
OF_THE_STORE = {"TRACE_S3_ENDPOINT": "http://127.0.0.1:9000", "TRACE_S3_BUCKET": "lake", "AWS_REGION": "eu-west-1"}
PLAIN = {"DAGSTER_HOME": "/d", "TRACE_HOME": "/h", "TRACE_LOG_LEVEL": "debug", "TRACE_LEASE_TTL_SECONDS": "9"}
GIVEN = {**SECRETS, **PLAIN}


@pytest.fixture(autouse=True)
def _latencies(monkeypatch):
    seconds = {FAR: 0.05, NEXT_DOOR: 0.001, SILENT: None, HERE: None}
    monkeypatch.setattr(latency, "latency_seconds", lambda endpoint: seconds[endpoint.url])


def known(environment):
    """Return the variables of SECRETS whose values are in an environment."""
    text = "\n".join(environment.values())
    return {name for name, value in SECRETS.items() if len(value) > 3 and value in text}


def test_the_devchain_knows_no_secret():
    assert known(devchain_environment(GIVEN)) == set()
    assert devchain_environment(GIVEN)["TRACE_LOG_LEVEL"] == "debug"


def test_web_server_and_daemon_know_the_database_only():
    environment = dagster_environment(GIVEN)
    assert known(environment) == {"TRACE_POSTGRES_URL"}
    assert PLAIN.items() <= environment.items()


def test_the_gateway_knows_the_pools_and_the_database():
    pools = {name for name in SECRETS if name.startswith("TRACE_RPC_POOL_") and name.endswith("_URL")}
    mine = {"TRACE_POSTGRES_URL", "TRACE_RPC_GATEWAY_URL", "TRACE_GATEWAY_TOKEN"}
    assert known(gateway_variables(GIVEN)) == pools | mine


def test_the_code_server_knows_only_the_pools_that_it_asks_directly():
    environment = code_environment(behind_gateway(GIVEN, GATEWAY))
    text = "\n".join(environment.values())
    assert HERE in text
    assert NEXT_DOOR in text
    for hidden in ("LimitedKey0123", "FarKey0123456", "SilentKey0123456", "ChaosKey0123", "PushKey", "limited.example"):
        assert hidden not in text
    assert {"TRACE_GATEWAY_TOKEN", "TRACE_WEB_PASSWORD", "TRACE_QUERY_TOKEN"}.isdisjoint(environment)
    assert environment["TRACE_RPC_POOL_LIMITED_RPS"] == "5"


def test_the_query_service_knows_the_database_and_the_key_that_may_only_read():
    environment = query_environment({**GIVEN, **OF_THE_STORE, "TRACE_QUERY_SECONDS": "9", "AWS_PROFILE": "admin"})
    assert known(environment) == {"TRACE_POSTGRES_URL", *READ_KEY}
    assert "AWS_PROFILE" not in environment
    assert OF_THE_STORE.items() <= environment.items()
    settings = Settings.read(environment)
    assert settings.query.seconds == 9
    assert (settings.s3_for_queries.access_key, settings.s3_for_queries.bucket) == ("AKIAREADER0123", "lake")


def test_without_a_key_that_may_only_read_the_query_service_has_the_object_stores():
    given = {name: value for name, value in GIVEN.items() if name not in READ_KEY}
    environment = query_environment({**given, "AWS_PROFILE": "lake"})
    assert known(environment) == {"TRACE_POSTGRES_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert environment["AWS_PROFILE"] == "lake"


@pytest.mark.parametrize("mode", ["", "auto", "always"])
def test_the_follower_knows_the_database_and_every_pool_at_the_gateway_only(mode):
    environment = follower_environment({**GIVEN, "TRACE_RPC_GATEWAY": mode}, GATEWAY)
    assert known(environment) == {"TRACE_POSTGRES_URL", "TRACE_RPC_GATEWAY_URL", "TRACE_GATEWAY_TOKEN"}
    assert "TRACE_GATEWAY_TOKEN" not in environment  # the token is in the gateway's URL
    settings = Settings.read(environment)
    for name in ("limited", "mixed", "silent", "here"):
        routed = GatewayRouting(settings).through(settings.pool(name))
        assert all(endpoint.address.startswith(f"{GATEWAY}/{name}/") for endpoint in routed.endpoints)


def test_the_follower_asks_directly_if_the_gateway_is_not_to_be_used():
    environment = follower_environment({**GIVEN, "TRACE_RPC_GATEWAY": "never"}, GATEWAY)
    assert environment["TRACE_RPC_POOL_LIMITED_URL"] == LIMITED
    assert "AWS_SECRET_ACCESS_KEY" not in environment


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_hidden_endpoint_is_asked_at_the_gateway_under_its_own_name_and_fingerprint(mode):
    given = {**GIVEN, "TRACE_RPC_GATEWAY": mode}
    settings = Settings.read(behind_gateway(given, GATEWAY))
    before = Settings.read(given)
    for name in ("limited", "mixed", "silent"):
        routed = GatewayRouting(settings).through(settings.pool(name), frozenset({"blocks"}))
        assert len(routed.endpoints) == len(before.pool(name).endpoints)
        for endpoint, original in zip(routed.endpoints, before.pool(name).endpoints, strict=True):
            assert (endpoint.name, endpoint.fingerprint) == (original.name, original.fingerprint)
            direct = mode == "auto" and original.url == NEXT_DOOR
            assert endpoint.address == (NEXT_DOOR if direct else f"{GATEWAY}/{name}/{endpoint.position}/blocks")
    if mode == "always":
        assert known(behind_gateway(given, GATEWAY)).isdisjoint({"TRACE_RPC_POOL_HERE_URL", "TRACE_RPC_POOL_MIXED_URL"})


def test_the_tip_is_asked_at_the_gateway_for_every_endpoint_if_one_runs():
    settings = Settings.read(behind_gateway(GIVEN, GATEWAY))
    routed = GatewayRouting(settings).for_tip(settings.pool("here"))
    assert [each.tip().address for each in routed.endpoints] == [f"{GATEWAY}/here/1/tip"]
    mixed = GatewayRouting(settings).for_tip(settings.pool("mixed"))
    assert [each.tip().address for each in mixed.endpoints] == [f"{GATEWAY}/mixed/1/tip", f"{GATEWAY}/mixed/2/tip"]


@pytest.mark.parametrize("given", [{"TRACE_RPC_GATEWAY": "never"}, {"TRACE_RPC_GATEWAY_URL": ""}])
def test_the_tip_is_asked_directly_where_no_gateway_is_used(given):
    settings = Settings.read(GIVEN | given)
    pool = settings.pool("here")
    assert GatewayRouting(settings).for_tip(pool) == pool


def test_the_fallback_is_hidden_as_well_and_asked_under_the_pools_name():
    given = {"TRACE_CRYO_RPC_URL": f"{FAR},{HERE}", "TRACE_RPC_GATEWAY_URL": GATEWAY, "TRACE_RPC_POOL_X_RPS": "5"}
    settings = Settings.read(behind_gateway(given, GATEWAY))
    routed = GatewayRouting(settings).through(settings.pool("x"))
    assert [endpoint.address for endpoint in routed.endpoints] == [f"{GATEWAY}/x/1", f"{GATEWAY}/x/2"]
    assert "FarKey0123456" not in repr(settings.child_variables())


def test_without_the_gateway_every_process_that_asks_knows_the_pools():
    given = {**GIVEN, "TRACE_RPC_GATEWAY": "never"}
    assert behind_gateway(given, GATEWAY) == given | {"TRACE_RPC_POOL_LIMITED_WS_URL": ""}


def test_what_follows_the_hash_is_not_sent():
    local = Endpoint("pool", 1, FAR).local_url(GATEWAY)
    assert local == f"{GATEWAY}/pool/1#{RpcPool('pool', (FAR,)).endpoints[0].fingerprint}"
    assert Endpoint("pool", 1, local).fingerprint == Endpoint("pool", 1, FAR).fingerprint


def test_children_that_a_library_starts_get_no_secret(monkeypatch):
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with bare_environment():
        shown = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    assert [value for name, value in SECRETS.items() if len(value) > 3 and value in shown] == []
    assert "DAGSTER_HOME=/d" in shown
    assert "PATH=" in shown
    assert dict(os.environ) == before
