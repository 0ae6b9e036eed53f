"""Which of a running stack's variables a shell gets: all of them, unless it names another database or object store."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import psutil
import pytest

from trace_dagster.config.running_stack import STATE_FILE, StackState, environment_with_stack
from trace_dagster.config.settings import Settings

STACK = {
    "TRACE_POSTGRES_URL": "postgresql://trace:secret@127.0.0.1:5555/trace",
    "TRACE_S3_ENDPOINT": "http://127.0.0.1:9000",
    "TRACE_S3_BUCKET": "trace-lake",
    "AWS_ACCESS_KEY_ID": "stack-key",
    "AWS_SECRET_ACCESS_KEY": "stack-secret",
    "AWS_REGION": "us-east-1",
    "TRACE_RPC_POOL_DEVCHAIN_URL": "http://127.0.0.1:8545",
    "TRACE_RPC_GATEWAY_URL": "http://127.0.0.1:8546/token",
    "TRACE_WEB_URL": "http://127.0.0.1:3000",
    "TRACE_QUERY_URL": "http://127.0.0.1:8480",
    "TRACE_QUERY_TOKEN": "trace_of-the-stack",
}
OWN_KEYS = {
    "AWS_ACCESS_KEY_ID": "prod-key",
    "AWS_SECRET_ACCESS_KEY": "prod-secret",
    "AWS_SESSION_TOKEN": "prod-token",
    "AWS_PROFILE": "prod",
    "AWS_REGION": "eu-west-1",
}


@pytest.fixture
def completed(tmp_path):
    """Return the function that completes an environment with the stack of ``tmp_path``, which this process plays."""
    process = psutil.Process()
    state = StackState(os.getpid(), process.create_time(), "id", STACK["TRACE_WEB_URL"], "", "", "", STACK)
    (tmp_path / STATE_FILE).write_text(json.dumps(asdict(state)))
    return lambda given: environment_with_stack({"TRACE_HOME": str(tmp_path), **given})


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        STACK["TRACE_POSTGRES_URL"],
        "postgres://trace:secret@localhost:5555/trace",
        "postgresql://other:words@[::1]:5555/trace?application_name=me",
        "postgresql:///trace?host=127.0.0.1&port=5555",
        "postgresql://trace@:5555",
    ],
)
def test_an_exported_database_that_is_the_stacks_still_finds_pools_store_and_web_server(completed, url):
    given = {} if url is None else {"TRACE_POSTGRES_URL": url}
    found = completed(given)
    assert {name: found[name] for name in STACK if name != "TRACE_POSTGRES_URL"} == {
        name: value for name, value in STACK.items() if name != "TRACE_POSTGRES_URL"
    }
    assert found["TRACE_POSTGRES_URL"] == (url or STACK["TRACE_POSTGRES_URL"])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://trace:secret@127.0.0.1:5556/trace",
        "postgresql://trace:secret@127.0.0.1/trace",
        "postgresql://trace:secret@127.0.0.1:5555/other",
        "postgresql://trace:secret@db.example:5555/trace",
        "postgresql://trace:secret@127.0.0.1:port/trace",
    ],
)
def test_another_database_gets_nothing_of_the_stack(completed, url):
    assert not set(completed({"TRACE_POSTGRES_URL": url})) & (set(STACK) - {"TRACE_POSTGRES_URL"})


def test_keys_that_are_exported_for_aws_are_not_those_of_the_stacks_server(completed):
    for given in (OWN_KEYS, {"AWS_SESSION_TOKEN": "stray"}, {"AWS_PROFILE": "stray"}):
        access = Settings.read(completed(given)).s3
        assert (access.access_key, access.secret_key, access.session_token, access.profile, access.region) == (
            "stack-key",
            "stack-secret",
            None,
            None,
            "us-east-1",
        )


def test_another_object_store_gets_no_key_of_the_stack(completed):
    found = completed({"TRACE_S3_ENDPOINT": "https://s3.example", **OWN_KEYS})
    assert {name: found[name] for name in OWN_KEYS} == OWN_KEYS
    assert "stack-secret" not in completed({"TRACE_S3_ENDPOINT": "https://s3.example"}).values()
    assert found["TRACE_RPC_POOL_DEVCHAIN_URL"] == STACK["TRACE_RPC_POOL_DEVCHAIN_URL"]


def test_the_stacks_own_object_store_may_be_used_with_another_key(completed):
    same = {"TRACE_S3_ENDPOINT": f"{STACK['TRACE_S3_ENDPOINT']}/"}
    assert completed(same)["AWS_ACCESS_KEY_ID"] == "stack-key"
    assert completed({**same, "AWS_ACCESS_KEY_ID": "reader"})["AWS_ACCESS_KEY_ID"] == "reader"


def test_another_query_service_does_not_get_the_stacks_token(completed):
    found = completed({"TRACE_QUERY_URL": "https://lake.example"})
    assert found["TRACE_QUERY_URL"] == "https://lake.example"
    assert "TRACE_QUERY_TOKEN" not in found
    own = completed({"TRACE_QUERY_URL": "https://lake.example", "TRACE_QUERY_TOKEN": "trace_of-the-lake"})
    assert own["TRACE_QUERY_TOKEN"] == "trace_of-the-lake"


def test_the_stacks_query_service_may_be_asked_with_another_token(completed):
    assert completed({"TRACE_QUERY_URL": "http://127.0.0.1:8480/"})["TRACE_QUERY_TOKEN"] == "trace_of-the-stack"
    found = completed({"TRACE_QUERY_TOKEN": "trace_narrower"})
    assert (found["TRACE_QUERY_URL"], found["TRACE_QUERY_TOKEN"]) == (STACK["TRACE_QUERY_URL"], "trace_narrower")


def test_a_variable_that_is_set_wins_and_an_empty_one_is_not_set(completed):
    found = completed({"TRACE_WEB_URL": "http://other:1", "TRACE_RPC_POOL_DEVCHAIN_URL": " "})
    assert found["TRACE_WEB_URL"] == "http://other:1"
    assert found["TRACE_RPC_POOL_DEVCHAIN_URL"] == STACK["TRACE_RPC_POOL_DEVCHAIN_URL"]


def test_a_process_of_the_stack_gets_its_variables_from_the_supervisor_alone(completed):
    given = {"TRACE_STACK_ID": "id", "TRACE_POSTGRES_URL": STACK["TRACE_POSTGRES_URL"]}
    assert "TRACE_RPC_POOL_DEVCHAIN_URL" not in completed(given)


def test_the_addresses_are_shown_without_a_secret():
    text = StackState(1, 1.0, "id", STACK["TRACE_WEB_URL"], "s3", "pg", "dev", STACK).summary()
    assert "queries      http://127.0.0.1:8480" in text.splitlines()
    for name in ("TRACE_QUERY_TOKEN", "AWS_SECRET_ACCESS_KEY", "TRACE_POSTGRES_URL"):
        assert STACK[name] not in text


def test_a_stack_that_ended_is_ignored(completed, tmp_path):
    state = json.loads((tmp_path / STATE_FILE).read_text())
    (tmp_path / STATE_FILE).write_text(json.dumps({**state, "started": state["started"] - 60}))
    assert set(completed({})) == {"TRACE_HOME"}
