"""RPC pools from the environment: their URLs, their limits and the methods of their endpoints."""

import pytest

from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput
from trace_dagster.rpc.pools import BATCH_CALLS, Limits

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
