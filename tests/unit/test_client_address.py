"""Which service the client asks, and with which token: a token is never sent to another service than its own."""

from __future__ import annotations

import json
import os
from decimal import Decimal

import numpy as np
import psutil
import pytest

import trace_dagster
from trace_dagster.client.connect import ServiceAddress, find_service
from trace_dagster.errors import InvalidInput

STACKS = ServiceAddress("http://127.0.0.1:7001", "stack-token-0123456789")
OWN = {"TRACE_QUERY_URL": "https://lake.example", "TRACE_QUERY_TOKEN": "own-token"}


@pytest.fixture
def home(tmp_path):
    """Write the state of a stack that runs; return the variables that name its folder."""
    state = {
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "stack_id": "s",
        "web_url": "http://127.0.0.1:3000",
        "s3_endpoint": "http://127.0.0.1:9000",
        "postgres_address": "127.0.0.1:5432",
        "devchain_address": "127.0.0.1:8545",
        "variables": {
            "TRACE_POSTGRES_URL": "postgresql://trace:pw@127.0.0.1:5432/trace",
            "TRACE_S3_ENDPOINT": "http://127.0.0.1:9000",
            "TRACE_QUERY_URL": STACKS.url,
            "TRACE_QUERY_TOKEN": STACKS.token,
        },
    }
    (tmp_path / "stack.json").write_text(json.dumps(state))
    return {"TRACE_HOME": str(tmp_path)}


def test_without_arguments_it_is_the_stack_that_runs_here(home):
    assert find_service(home) == STACKS


def test_the_variables_go_before_the_stack(home):
    assert find_service(home | OWN) == ServiceAddress("https://lake.example", "own-token")


def test_the_arguments_go_before_all(home):
    assert find_service(home | OWN, "http://other:1", "other") == ServiceAddress("http://other:1", "other")


def test_a_token_is_not_sent_to_another_service(home):
    assert find_service(home | OWN, "http://other:1") == ServiceAddress("http://other:1", None)
    assert find_service(home | OWN, "http://other:1", "") == ServiceAddress("http://other:1", None)
    assert find_service(home, "http://other:1") == ServiceAddress("http://other:1", None)
    assert find_service(home | {"TRACE_QUERY_URL": "http://other:1"}) == ServiceAddress("http://other:1", None)


def test_the_same_url_has_its_token(home):
    assert find_service(home, STACKS.url + "/") == ServiceAddress(STACKS.url + "/", STACKS.token)
    assert find_service(OWN, "https://lake.example/") == ServiceAddress("https://lake.example/", "own-token")


def test_another_token_for_the_stack(home):
    assert find_service(home, token="mine") == ServiceAddress(STACKS.url, "mine")
    assert find_service(home | {"TRACE_QUERY_TOKEN": "mine"}) == ServiceAddress(STACKS.url, "mine")


def test_a_token_of_no_url_is_for_the_url_that_is_given():
    assert find_service({"TRACE_QUERY_TOKEN": "mine"}, "http://h:1") == ServiceAddress("http://h:1", "mine")


def test_an_empty_variable_is_none(home):
    assert find_service(home | {"TRACE_QUERY_URL": " ", "TRACE_QUERY_TOKEN": ""}) == STACKS


def test_without_a_service_the_way_to_one_is_named(tmp_path, monkeypatch):
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACE_HOME", str(tmp_path))
    with pytest.raises(
        InvalidInput, match="run `trace-lite up` in this folder, or set TRACE_QUERY_URL and TRACE_QUERY"
    ):
        trace_dagster.connect()


def test_no_secret_is_in_a_repr():
    assert "own-token" not in repr(find_service(OWN))
    assert "own-token" not in repr(trace_dagster.connect("http://h:1", "own-token"))


WRONG = [
    ({"url": 5}, "url is a text, not int"),
    ({"url": b"http://h:1"}, "url is a text, not bytes"),
    ({"token": 5}, "token is a text, not int"),
    ({"token": b"own-token"}, "token is a text, not bytes"),
    *(({"retries": retries}, "retries is") for retries in (-1, 1.5, "2", None, True, float("nan"))),
    *(
        ({"timeout_seconds": seconds}, "timeout_seconds is a number greater than 0")
        for seconds in (0, -1, float("nan"), float("inf"), Decimal("NaN"), 1e12, 10**400, "60", b"60", None, True)
    ),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=str)
def test_a_wrong_argument_is_refused_before_anything_is_sent(given, said):
    with pytest.raises(InvalidInput, match=said):
        trace_dagster.connect(**{"url": "http://127.0.0.1:1", **given})


def test_numbers_of_other_types_are_taken():
    for number in (np.int64(3), np.float64(2.5), Decimal("0.5")):
        trace_dagster.connect("http://127.0.0.1:1", timeout_seconds=number)
    trace_dagster.connect("http://127.0.0.1:1", retries=np.int64(3))
