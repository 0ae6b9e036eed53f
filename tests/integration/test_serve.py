"""`trace-lite serve` by itself: what it needs, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.request import Request, urlopen

import psycopg
import pytest

from trace_dagster.cli.serve import is_of_this_machine, listening
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.tokens import Tokens
from trace_dagster.store.access import S3Access

pytestmark = pytest.mark.integration


def serving(postgres_url: str, s3: S3Access, *arguments: str) -> subprocess.Popen[str]:
    """Start `trace-lite serve` with the registry and the bucket, and nothing else."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "AWS_"))}
    environment |= {
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_S3_ENDPOINT": s3.endpoint,
        "TRACE_S3_BUCKET": s3.bucket,
        "TRACE_S3_QUERY_ACCESS_KEY_ID": s3.access_key,
        "TRACE_S3_QUERY_SECRET_ACCESS_KEY": s3.secret_key,
        "TRACE_QUERY_RUNNING": "1",
        "AWS_REGION": "us-east-1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "trace_dagster.cli.main", "serve", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_serve_alone_says_where_it_answers_and_ends_with_ctrl_c(postgres_url, database, s3):
    token = Tokens(database).new("reader", expires_in=None)
    process = serving(postgres_url, s3, "--port", "0")
    try:
        said = process.stderr.readline()
        url = re.fullmatch(r"queries are answered at (http://127\.0\.0\.1:\d+)   \(ctrl-c ends it\)\n", said)[1]
        request = Request(
            f"{url}/v1/query",
            b'{"sql": "select 6 * 7 as answer"}',
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as answer:
            assert json.load(answer)["rows"] == [[42]]
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert "Traceback" not in rest
    assert token not in rest


def test_a_taken_port_and_a_strange_host_are_one_line_each(postgres_url, s3):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serving(postgres_url, s3, "--port", str(port))
        _, said = process.communicate(timeout=60)
    assert said == f"error: port {port} is taken: end what uses it, or pass another --port\n"
    assert process.returncode == 2
    with pytest.raises(InvalidInput, match=r"'192\.0\.2\.1' is no address of this machine"):
        listening("192.0.2.1", 0)
    with pytest.raises(InvalidInput, match="is no address of this machine"):
        listening("nowhere.invalid", 0)


def test_a_registry_of_another_version_is_refused(postgres_url, s3):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("delete from trace.migrations where name like '0013%'")
    process = serving(postgres_url, s3, "--port", "0")
    _, said = process.communicate(timeout=60)
    assert said == "error: the registry's schema is not current: run `trace-lite migrate`\n"
    assert process.returncode == 2


@pytest.mark.parametrize(("most", "expected"), [(5000, 5000), (20_000, 8192)])
def test_the_service_may_open_more_files_than_a_process_at_first(most, expected):
    program = (
        "import resource as r; from trace_dagster.cli.serve import allow_descriptors\n"
        f"r.setrlimit(r.RLIMIT_NOFILE, (1024, {most})); allow_descriptors(); print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"({expected}, {most})\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_an_address_of_this_machine_needs_no_note(host):
    assert is_of_this_machine(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "lake.example"])
def test_an_address_for_others_needs_one(host):
    assert not is_of_this_machine(host)


def test_a_service_for_others_is_started_with_a_note(postgres_url, s3):
    process = serving(postgres_url, s3, "--port", "0", "--host", "0.0.0.0")
    try:
        assert process.stderr.readline().startswith("note: the service listens on 0.0.0.0 without TLS")
        assert process.stderr.readline().startswith("queries are answered at http://0.0.0.0:")
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
