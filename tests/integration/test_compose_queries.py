"""The query service of docker/compose.yaml, with a key that may only read and a database role of few rights."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import psycopg
import pytest

from tests.support.compose import Compose
from tests.support.following import eventually
from trace_dagster.lite.home import Home
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.processes import Child
from trace_dagster.lite.s3 import s3_service
from trace_dagster.registry.tokens import Tokens
from trace_dagster.store.access import S3Access

pytestmark = pytest.mark.integration
PAGE = Path(__file__).parents[2] / "docs" / "service.md"


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Iterator[S3Access]:
    """Run an S3 server; yield its bucket with the key that may only list and read."""
    home = Home(tmp_path_factory.mktemp("readerhome"))
    home.prepare()
    ports, secrets = Ports({}), home.secrets()
    port = ports.take(with_grpc=True)
    owner = S3Access("lake", secrets.s3_access_key, secrets.s3_secret_key, f"http://{HOST}:{port}")
    child = Child(s3_service(home.path / "s3", ports, secrets, owner, port), home.logs / "s3.log")
    try:
        child.wait_healthy()
        yield S3Access("lake", secrets.s3_query_access_key, secrets.s3_query_secret_key, owner.endpoint)
    finally:
        child.signal_stop()
        child.wait_stopped(10)


@contextmanager
def limited_role(postgres_url: str) -> Iterator[str]:
    """Make the role that the document describes; yield the URL with it."""
    role, password = f"r{uuid4().hex}", uuid4().hex
    [statements] = re.findall(r"<!-- role: begin -->\n```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(statements.replace("trace_queries", role).replace("CHANGE_ME", password))
        yield postgres_url.replace(urlsplit(postgres_url).netloc.split("@")[0], f"{role}:{password}")
        connection.execute(f"drop owned by {role}")
        connection.execute(f"drop role {role}")


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def ask(port: int, token: str, sql: str) -> list[list[object]]:
    """Return the rows of a query."""
    request = Request(
        f"http://{HOST}:{port}/v1/query",
        json.dumps({"sql": sql}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=60) as answer:
        rows: list[list[object]] = json.load(answer)["rows"]
        return rows


def test_the_service_needs_no_more_than_the_file_and_the_document_give_it(postgres_url, database, reader, tmp_path):
    port = free_port()
    with limited_role(postgres_url) as url:
        compose = Compose(
            env={
                "TRACE_POSTGRES_URL": url,
                "TRACE_S3_BUCKET": reader.bucket,
                "TRACE_S3_QUERY_ACCESS_KEY_ID": reader.access_key,
                "TRACE_S3_QUERY_SECRET_ACCESS_KEY": reader.secret_key,
                "AWS_REGION": "us-east-1",
            },
            pools={},
            replaced={"0.0.0.0": HOST, "8480": str(port), "http://minio:9000": reader.endpoint},
        )
        token = Tokens(database).new("reader", expires_in=None)
        assert not compose.is_healthy("queries")
        with compose.running("queries", tmp_path) as log:
            eventually(lambda: compose.is_healthy("queries"), 60)
            assert ask(port, token, "select 1 + 1 as two") == [[2]]
            with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("delete from trace.query_log")
        assert token not in log.read_text()
        with database.connection() as connection:
            [row] = connection.execute("select token_name, outcome from trace.query_log").fetchall()
        assert (row["token_name"], row["outcome"]) == ("reader", "done")
