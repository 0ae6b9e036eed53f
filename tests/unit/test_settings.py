"""Settings: every variable with valid, invalid, empty and boundary values. No error or repr contains a secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trace_dagster.config import process
from trace_dagster.config.process import TEST_VARIABLES, gateway_environment, start_process, unknown_variables
from trace_dagster.config.rpc_pools import POOL_SETTINGS
from trace_dagster.config.settings import Settings, fields, settings_from
from trace_dagster.config.variables import variables_table, with_table
from trace_dagster.errors import InvalidInput
from trace_dagster.messages import redaction

SECRET = "hunter2hunter2hunter2"
URL = f"https://node.example/{SECRET}"
BIG = str(2**62 - 1)
READ_KEYS = {"TRACE_S3_QUERY_ACCESS_KEY_ID": "a", "TRACE_S3_QUERY_SECRET_ACCESS_KEY": "b"}
QUEUE_KEYS = {"TRACE_SQS_ACCESS_KEY_ID": "a", "TRACE_SQS_SECRET_ACCESS_KEY": "b"}
QUEUES = {"TRACE_SQS_QUEUE_URL": "https://q.example/1/a", "TRACE_SQS_DEAD_QUEUE_URL": "https://q.example/1/b"}

POSITIVE = (["1", "7", BIG], ["0", "-1", "1.5", "many", "1e3", "٢", "1_0", str(2**62), "9" * 30])
PORT = (["1", "65535"], ["0", "65536", "http", "-1"])
UP_TO_A_MILLION = (["0", "1000000"], ["-1", "1000001", "x"])
TEXT = (["anything"], [])
WEB = (
    ["http://a", "https://a.example:1/b"],
    ["a", "ftp://a", "http://", f"http://user:{SECRET}@a", "http://[a", "http://a:0"],
)
DATABASE = (
    ["postgresql://x", f"postgres://u:{SECRET}@h:1/d"],
    ["x", f"mysql://u:{SECRET}@h/d", "dbname=x", "http://[a"],
)
NODE = (["http://a", f"https://u:{SECRET}@a"], ["a", f"ftp://{SECRET}", "http://a:0"])
NODES = ([URL, f"{URL},http://b", " http://a , http://b "], ["a", "http://a,b", ",", f"ftp://{SECRET}", "http://a:0"])

VALUES: dict[str, tuple[list[str], list[str]]] = {
    "TRACE_POSTGRES_URL": (
        ["postgresql://x", f"postgres://u:{SECRET}@h:1/d"],
        ["x", f"mysql://u:{SECRET}@h/d", "dbname=x", "http://[a"],
    ),
    "TRACE_S3_ENDPOINT": WEB,
    "TRACE_S3_BUCKET": TEXT,
    "AWS_ACCESS_KEY_ID": TEXT,
    "AWS_SECRET_ACCESS_KEY": TEXT,
    "AWS_SESSION_TOKEN": TEXT,
    "AWS_PROFILE": TEXT,
    "AWS_REGION": TEXT,
    "AWS_DEFAULT_REGION": TEXT,
    "TRACE_SQS_QUEUE_URL": WEB,
    "TRACE_SQS_DEAD_QUEUE_URL": WEB,
    "TRACE_SQS_ENDPOINT": WEB,
    "TRACE_S3_QUERY_ACCESS_KEY_ID": TEXT,
    "TRACE_S3_QUERY_SECRET_ACCESS_KEY": TEXT,
    "TRACE_SQS_ACCESS_KEY_ID": TEXT,
    "TRACE_SQS_SECRET_ACCESS_KEY": TEXT,
    "TRACE_CHANGES_DAYS": (["1", "36500"], ["0", "36501", "1.5", "ever"]),
    "TRACE_LEASE_TTL_SECONDS": POSITIVE,
    "TRACE_MAX_ATTEMPTS": POSITIVE,
    "TRACE_RETRY_BASE_SECONDS": POSITIVE,
    "TRACE_RANGES_PER_RUN": POSITIVE,
    "MAX_PARQUET_FILES_PER_RANGE": POSITIVE,
    "MAX_PARQUET_BYTES_PER_FILE": POSITIVE,
    "MAX_TOTAL_PARQUET_BYTES_PER_RANGE": POSITIVE,
    "TRACE_CRYO_MODE": (["real", "fake"], ["reel", "REAL", "0"]),
    "TRACE_CRYO_BIN": TEXT,
    "CRYO_BIN": TEXT,
    "TRACE_STAGING_DIR": TEXT,
    "TRACE_CRYO_STAGING_TTL_HOURS": (["0", "0.5", "999999"], ["-1", "1000000", "nan", "soon"]),
    "NUMBA_CACHE_DIR": TEXT,
    "TRACE_CRYO_RPC_URL": NODES,
    "TRACE_RPC_GATEWAY": (["auto", "always", "never"], ["sometimes", "Auto"]),
    "TRACE_RPC_GATEWAY_URL": WEB,
    "TRACE_GATEWAY_TOKEN": (["a" * 16, "b-_9" * 32], ["a" * 15, "a" * 129, "a/" * 10]),
    "TRACE_GATEWAY_CACHE_BYTES": (["0", "999999999999"], ["-1", "1000000000000", "1e3", "much"]),
    "TRACE_QUERY_URL": WEB,
    "TRACE_QUERY_TOKEN": ([f"trace_{'aB3-_' * 8}xyz", SECRET], ["a" * 15, "a" * 513, f"two words {SECRET}", "ä" * 20]),
    "TRACE_QUERY_RUNNING": (["1", "4", "256"], ["0", "257", "1.5", "x"]),
    "TRACE_QUERY_WAITING": (["0", "32", "10000"], ["-1", "10001", "x"]),
    "TRACE_QUERY_SECONDS": (["1", "60", "3600"], ["0", "3601", "1m"]),
    "TRACE_QUERY_STREAM_SECONDS": (["1", "3600", "21600"], ["0", "21601", "1h"]),
    "TRACE_QUERY_MEMORY_MIB": (["64", "2048", "1000000"], ["63", "1000001", "2GiB"]),
    "TRACE_QUERY_TEMPORARY_MIB": UP_TO_A_MILLION,
    "TRACE_QUERY_THREADS": (["1", "2", "256"], ["0", "257", "x"]),
    "TRACE_QUERY_LOG_DAYS": (["1", "36500"], ["0", "36501", "1.5", "ever"]),
    "TRACE_QUERY_HOSTS": (
        ["lake.example", "lake, 10.0.0.7", "A.example,b-c.example:8443"],
        [
            "http://lake.example",
            "lake.example:0",
            "lake.example:",
            "lake.example:123456",
            "a,,b",
            "-a",
            "a b",
            "*",
            f"{'a' * 64}.example",
            "a." * 130,
        ],
    ),
    "TRACE_LOG_FORMAT": (["text", "json"], ["xml"]),
    "TRACE_LOG_LEVEL": (["debug", "info", "warning", "error"], ["loud", "INFO"]),
    "TRACE_HOME": TEXT,
    "TRACE_PORT_POSTGRES": PORT,
    "TRACE_PORT_S3": (["1", "55535"], ["0", "55536", "x"]),
    "TRACE_PORT_WEB": PORT,
    "TRACE_PORT_DEVCHAIN": PORT,
    "TRACE_PORT_GATEWAY": PORT,
    "TRACE_PORT_QUERY": PORT,
    "TRACE_DEVCHAIN_BLOCKS": UP_TO_A_MILLION,
    "TRACE_DEVCHAIN_BLOCK_INTERVAL_SECONDS": UP_TO_A_MILLION,
    "TRACE_WEB_URL": WEB,
    "TRACE_WEB_PASSWORD": ([SECRET, "sixsix", "with: colon ä"], ["short", "a\x1bcontrol character", "two\nlines"]),
    "TRACE_STACK_ID": TEXT,
    "TRACE_CHAOS_UPSTREAM": NODE,
    "TRACE_CHAOS_FORK_UPSTREAM": NODE,
    "TRACE_DEBUG": TEXT,
    "TRACE_RPC_POOL_X_URL": NODES,
    "TRACE_RPC_POOL_X_WS_URL": (
        ["ws://127.0.0.1:8546", "wss://a/key", "ws://a,,wss://u:p@b/x,"],
        ["http://a", "ws://", "wss://a,http://b", ",", "ws://a#b", "ws://a:0"],
    ),
    "TRACE_RPC_POOL_X_QUORUM": (["1", "10000"], ["0", "10001", "x"]),
    "TRACE_RPC_POOL_X_RPS": (["1", "1000000"], ["0", "1000001", "x"]),
    "TRACE_RPC_POOL_X_CONCURRENCY": (["1", "10000"], ["0", "10001", "x"]),
    "TRACE_RPC_POOL_X_BATCH": (["1", "1000"], ["0", "1001", "x"]),
}
RIGHT = [(variable, value) for variable, (right, _) in VALUES.items() for value in right]
WRONG = [(variable, value) for variable, (_, wrong) in VALUES.items() for value in wrong]


def around(variable: str) -> dict[str, str]:
    """Return the other variables that this one needs."""
    return {
        name: value
        for pair in (QUEUES, QUEUE_KEYS, READ_KEYS)
        if variable in pair
        for name, value in pair.items()
        if name != variable
    }


def test_every_variable_has_examples():
    pools = {f"TRACE_RPC_POOL_X_{setting}" for setting in POOL_SETTINGS}
    assert set(VALUES) == {variable for variable, _ in fields()} | pools


@pytest.mark.parametrize(("variable", "value"), RIGHT)
def test_a_right_value_changes_the_settings(variable, value):
    others = around(variable)
    assert Settings.read({**others, variable: f" {value} "}).model_dump() != {}
    if others:
        return
    default = dict(fields())[variable].default if "POOL" not in variable else None
    same = str(default) == value
    assert (Settings.read({variable: value}).model_dump() == Settings.read({}).model_dump()) is same


@pytest.mark.parametrize(("variable", "value"), WRONG)
def test_a_wrong_value_names_its_variable_in_one_line(variable, value):
    with pytest.raises(InvalidInput) as caught:
        Settings.read({**around(variable), variable: value})
    text = str(caught.value)
    assert text.startswith(f"{variable} must ")
    assert "\n" not in text
    assert SECRET not in text


@pytest.mark.parametrize("variable", VALUES)
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_is_not_set(variable, value):
    assert Settings.read({variable: value}).model_dump() == Settings.read({}).model_dump()


@given(st.sampled_from(sorted(VALUES)), st.text(min_size=8, max_size=60))
def test_no_secret_shows_in_a_repr_or_an_error(variable, noise):
    secret = f"{noise}{SECRET}"
    for value in (secret, f"https://a.example/{secret}", f"http://u:{secret}@a", f"http://{secret}"):
        try:
            settings = Settings.read({**around(variable), variable: value})
            texts = [repr(settings), str(settings), repr(settings.rpc.pools)]
        except InvalidInput as error:
            texts = [str(error), repr(error), repr(error.__cause__)]
        if variable in PLAIN:  # an error may show a path, a name or an invalid choice
            continue
        assert all(SECRET not in text for text in texts), variable


PLAIN = {
    "TRACE_S3_BUCKET",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "TRACE_CRYO_MODE",
    "TRACE_CRYO_BIN",
    "CRYO_BIN",
    "TRACE_STAGING_DIR",
    "NUMBA_CACHE_DIR",
    "TRACE_RPC_GATEWAY",
    "TRACE_LOG_FORMAT",
    "TRACE_QUERY_HOSTS",
    "TRACE_LOG_LEVEL",
    "TRACE_HOME",
    "TRACE_STACK_ID",
    "TRACE_DEBUG",
}


def test_reading_takes_nothing_but_the_mapping(monkeypatch):
    monkeypatch.setenv("TRACE_MAX_ATTEMPTS", "9")
    monkeypatch.setenv("MAX_ATTEMPTS", "9")
    assert Settings.read({}).ranges.max_attempts == 3


def test_one_queue_or_half_a_key_of_it_is_refused():
    for variable in [*QUEUES, *QUEUE_KEYS]:
        with pytest.raises(InvalidInput, match="go together: set both, or neither"):
            Settings.read(around(variable))


def test_a_process_that_uses_the_registry_needs_its_url_and_no_half_a_key():
    given = {"TRACE_POSTGRES_URL": "postgresql://x", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert settings_from(given).s3.bucket == "trace-lake"
    with pytest.raises(InvalidInput, match="TRACE_POSTGRES_URL is not set and no stack is running here"):
        settings_from({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    for half in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        with pytest.raises(InvalidInput, match="go together: set both, or neither"):
            settings_from({name: value for name, value in given.items() if name != half})


def test_a_session_token_belongs_to_its_key_and_a_profile_is_used_without_one(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[profile lake]\nregion = eu-west-1\n")
    base = {"TRACE_POSTGRES_URL": "postgresql://x", "AWS_PROFILE": "lake", "AWS_SESSION_TOKEN": SECRET}
    with_key = settings_from({**base, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).s3
    assert (with_key.session_token, with_key.profile, with_key.region) == (SECRET, None, "us-east-1")
    without = settings_from(base).s3
    assert (without.access_key, without.session_token, without.profile) == (None, None, "lake")
    assert without.region == "eu-west-1"
    with pytest.raises(InvalidInput, match="no such profile: check AWS_PROFILE"):
        settings_from({**base, "AWS_PROFILE": "other"})


def test_a_pool_without_urls_fails_where_it_is_needed():
    settings = Settings.read({"TRACE_RPC_POOL_X_RPS": "5"})
    assert settings.rpc.pools == {}
    with pytest.raises(InvalidInput, match="'x' has no URL: set TRACE_RPC_POOL_X_URL"):
        settings.pool("x")


def test_the_fallback_has_the_limits_of_the_pool_it_stands_for():
    pool = Settings.read({"TRACE_RPC_POOL_X_RPS": "5", "TRACE_CRYO_RPC_URL": "http://a"}).pool("x")
    assert (pool.name, pool.urls, pool.limits.requests_per_second) == ("x", ("http://a",), 5)


def test_secrets_are_those_that_logs_must_hide():
    settings = Settings.read(
        {
            "TRACE_POSTGRES_URL": "postgresql://trace:p%40ssword@postgres:5432/trace",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "TRACE_RPC_POOL_X_URL": URL,
            "TRACE_RPC_POOL_X_WS_URL": "wss://push.example/KEY987654",
            "TRACE_GATEWAY_TOKEN": "t" * 20,
            "TRACE_WEB_PASSWORD": "open sesame",
            "TRACE_QUERY_TOKEN": "q" * 20,
        }
    )
    assert set(settings.secrets()) == {"p%40ssword", "p@ssword", SECRET, URL, "wss://push.example/KEY987654"} | {
        "t" * 20,
        "open sesame",
        "q" * 20,
    }


def test_a_process_protects_its_secrets_when_it_starts(monkeypatch):
    monkeypatch.setattr(redaction, "_known", redaction._KnownSecrets())
    monkeypatch.setattr(process, "_started", {"logs"})
    assert SECRET in redaction.redact(f"key {SECRET}")
    start_process({"AWS_SECRET_ACCESS_KEY": SECRET}, with_stack=False)
    assert redaction.redact(f"key {SECRET}") == f"key {redaction.HIDDEN}"


def test_settings_cannot_be_changed():
    settings = Settings.read({})
    for changed in (settings, settings.ranges):
        with pytest.raises(ValidationError):
            setattr(changed, next(iter(type(changed).model_fields)), 1)


@pytest.mark.parametrize(
    ("variable", "close"),
    [
        ("TRACE_MAX_ATTEMPT", "TRACE_MAX_ATTEMPTS"),
        ("TRACE_RPC_POOL_MONAD_RPM", "TRACE_RPC_POOL_MONAD_RPS"),
        ("TRACE_RPC_POOL_MONAD_URLS", "TRACE_RPC_POOL_MONAD_URL"),
        ("TRACE_QQQ", None),
    ],
)
def test_an_unknown_variable_is_found_with_the_nearest_known_one(variable, close):
    assert unknown_variables({variable: SECRET, "PATH": "/bin"}) == [(variable, close)]


def test_known_variables_are_not_warned_about():
    assert unknown_variables(dict.fromkeys([*VALUES, *TEST_VARIABLES], "x")) == []


def test_a_gateway_child_gets_pools_and_no_key_of_the_object_store():
    settings = Settings.read({"TRACE_RPC_POOL_X_URL": URL, "AWS_SECRET_ACCESS_KEY": SECRET, "TRACE_S3_BUCKET": "b"})
    found = gateway_environment(settings)
    assert found["TRACE_RPC_POOL_X_URL"] == URL
    assert not any(name.startswith(("AWS_", "TRACE_S3")) for name in found)


@pytest.mark.parametrize(
    ("command", "warnings"),
    [
        (["-m", "trace_dagster.cli.main", "jobs"], ["warning: TRACE_MAX_ATTEMPT is not a known variable"]),
        (["-c", "import trace_dagster.definitions"], ["warning config unknown_variable variable=TRACE_MAX_ATTEMPT"]),
    ],
)
def test_a_process_warns_a_single_time_on_stderr(tmp_path, command, warnings):
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "TRACE_HOME": str(tmp_path), "TRACE_MAX_ATTEMPT": SECRET},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = [line for line in done.stderr.splitlines() if "TRACE_MAX_ATTEMPT" in line]
    assert len(found) == 1
    assert warnings[0] in found[0]
    assert "TRACE_MAX_ATTEMPTS" in found[0]
    assert SECRET not in done.stderr + done.stdout
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_the_code_location_logs_as_its_settings_say(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import trace_dagster.definitions"],
        env={**os.environ, "TRACE_HOME": str(tmp_path), "TRACE_LOG_FORMAT": "json", "TRACE_LOGS": "x"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("{")]
    found = json.loads(line)
    assert (found["component"], found["event"], found["variable"]) == ("config", "unknown_variable", "TRACE_LOGS")


def test_a_wrong_variable_is_one_line_of_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "trace_dagster.cli.main", "status"],
        env={**os.environ, "TRACE_HOME": str(tmp_path), "TRACE_RPC_POOL_X_RPS": "fast"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr.strip() == "error: TRACE_RPC_POOL_X_RPS must be a number from 1 to 1000000"
    assert (done.returncode, done.stdout) == (2, "")


def test_the_table_in_the_documents_is_the_generated_one():
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert with_table(page) == page, "run `make docs-tables`"
    assert "TRACE_STACK_ID" not in variables_table()
