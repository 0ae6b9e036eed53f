"""RPC pools from the environment: their URLs, their limits and the methods of their endpoints."""

from dataclasses import replace

import pytest

from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput
from trace_dagster.messages.redaction import redact
from trace_dagster.rpc.pools import BATCH_CALLS, Endpoint, Limits

URL = {"TRACE_RPC_POOL_STANDARD_URL": "http://a.example/key1,http://b.example/key2"}


def test_limits_are_none_where_nobody_said():
    assert Settings.read(URL).pool("standard").limits == Limits(None, None, BATCH_CALLS)


def test_limits_hold_for_each_endpoint():
    said = {"RPS": "25", "CONCURRENCY": "8", "BATCH": "1"}
    found = Settings.read(URL | {f"TRACE_RPC_POOL_STANDARD_{name}": value for name, value in said.items()}).pool(
        "standard"
    )
    assert found.limits == Limits(25, 8, 1)
    assert len(found.endpoints) == 2


@pytest.mark.parametrize("setting", ["RPS", "CONCURRENCY", "BATCH", "QUORUM"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "٢", "9" * 12, "1e3"])
def test_a_limit_that_is_no_number_names_its_variable(setting, value):
    with pytest.raises(InvalidInput, match=f"TRACE_RPC_POOL_STANDARD_{setting} must be a number from 1 to"):
        Settings.read(URL | {f"TRACE_RPC_POOL_STANDARD_{setting}": value}).pool("standard")


def test_no_error_shows_a_key():
    with pytest.raises(InvalidInput) as caught:
        Settings.read(URL | {"TRACE_RPC_POOL_STANDARD_RPS": "fast"}).pool("standard")
    assert "key1" not in str(caught.value)


def test_websocket_urls_belong_to_the_endpoints_by_position():
    pool = Settings.read(URL | {"TRACE_RPC_POOL_STANDARD_WS_URL": ", wss://b.example/PushKey34567"}).pool("standard")
    assert [endpoint.websocket_url for endpoint in pool.endpoints] == ["", "wss://b.example/PushKey34567"]
    assert Settings.read(URL).pool("standard").endpoints[0].websocket_url == ""
    assert "PushKey34567" not in redact("it says key3key3 wss://b.example/PushKey34567")
    assert "b.example" not in repr(pool)
    assert "b.example" not in repr(pool.endpoints)


def test_more_websocket_urls_than_endpoints_name_their_variable():
    with pytest.raises(InvalidInput, match="TRACE_RPC_POOL_STANDARD_WS_URL has 3 places, but the pool has 2 endpoints"):
        Settings.read(URL | {"TRACE_RPC_POOL_STANDARD_WS_URL": "ws://a,ws://b,ws://c/key4"})


def test_the_tip_of_an_endpoint_has_a_route_of_its_own():
    direct = Endpoint("ws", 1, "http://node.example/ws/1")
    assert direct.tip().address == direct.address
    assert (direct.tip().is_at_tip, direct.heads_url) == (True, "")
    routed = replace(direct, gateway_url="http://127.0.0.1:9/ws/1token/ws/1/blocks+receipts")
    assert routed.tip().address == "http://127.0.0.1:9/ws/1token/ws/1/tip"
    assert routed.tip().tip() == routed.tip()
    assert routed.heads_url == routed.tip().heads_url == "http://127.0.0.1:9/ws/1token/ws/heads"
