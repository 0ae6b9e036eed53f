"""The query service over a test's registry and bucket: a real server, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import urllib3

from tests.conftest import cloned_database, fresh_bucket
from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.serve import service_parts
from trace_dagster.config.settings import Settings
from trace_dagster.registry.connection import Database
from trace_dagster.registry.grants import ALL, Grants
from trace_dagster.registry.tokens import Tokens
from trace_dagster.service.answering import Answering
from trace_dagster.service.parts import Parts
from trace_dagster.service.server import server
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

HOST = "127.0.0.1"
_START_SECONDS = 60.0


@dataclass
class Answer:
    """An answer that arrived whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The members of an error, which must have its shape."""
        document = self.json()
        assert document.keys() == {"error"}
        error: dict[str, Any] = document["error"]
        assert error.keys() - {"query_id"} == {"status", "code", "message"}
        assert error["status"] == self.status
        assert "\n" not in error["message"]
        return error


class RunningService:
    """A service that runs, and a token that may see everything."""

    def __init__(
        self, port: int, postgres_url: str, process: subprocess.Popen[bytes] | None, parts: Parts | None
    ) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.postgres_url = postgres_url
        self.process = process
        """None if it runs in this process."""
        self.parts = parts
        """None if it runs in a process of its own."""
        self.answering: Answering | None = None
        """None if it runs in a process of its own."""
        self.token = self.new_token(f"everything-{port}")
        self._http = urllib3.PoolManager(maxsize=64, retries=False, timeout=120)

    def new_token(self, name: str, *patterns: str, **limits: int | None) -> str:
        """Make a token that may see what the patterns say; without any, everything."""
        database = Database(self.postgres_url, max_connections=1)
        try:
            grants = Grants.parse(patterns) if patterns else ALL
            return Tokens(database).new(name, grants, expires_in=None, **limits)
        finally:
            database.close()

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the answer. ``body`` is sent as JSON unless it is bytes; no token means ours."""
        sent = {**self.authorization(token), **(headers or {})}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        answer = self._http.request(method, self.url + path, body=data, headers=sent, redirect=False)
        return Answer(answer.status, answer.headers, answer.data)

    def query(
        self, sql: str, *, token: str | None = "", headers: Mapping[str, str] | None = None, **members: Any
    ) -> Answer:
        """Send a query, and return the answer whatever its status is."""
        return self.ask("/v1/query", {"sql": sql, **members}, token=token, headers=headers)

    def rows(self, sql: str, **members: Any) -> list[list[Any]]:
        """Return the rows of a query's JSON answer."""
        answer = self.query(sql, **members)
        assert answer.status == 200, answer.body
        rows: list[list[Any]] = answer.json()["rows"]
        return rows

    def authorization(self, token: str | None = "") -> dict[str, str]:
        """Return the header of a token: ours without one, none for None."""
        return {} if token is None else {"Authorization": f"Bearer {token or self.token}"}

    def connect(self) -> socket.socket:
        """Return a new connection to the service."""
        return socket.create_connection((HOST, self.port), 30)


@contextmanager
def running_service(postgres_url: str, access: S3Access, **variables: object) -> Iterator[RunningService]:
    """Run the service in a thread of this process. ``running=2`` stands for ``TRACE_QUERY_RUNNING=2``."""
    settings = Settings.read(_environment(postgres_url, access, variables))
    with service_parts(settings) as parts:
        served = server(parts, HOST, 0)
        thread = threading.Thread(target=served.run, name="service")
        thread.start()
        try:
            _until(lambda: served.started or not thread.is_alive())
            port = served.servers[0].sockets[0].getsockname()[1]
            running = RunningService(port, postgres_url, None, parts)
            running.answering = served.config.app.state.answering
            yield running
        finally:
            served.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the service did not end"


@contextmanager
def service_process(postgres_url: str, access: S3Access, **variables: object) -> Iterator[RunningService]:
    """Run ``trace-lite serve`` in a process of its own."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "trace_dagster.cli.main", "serve", "--host", HOST, "--port", str(port)],
        env={**os.environ, **_environment(postgres_url, access, variables)},
    )
    try:
        _until(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None, "the service did not start"
        yield RunningService(port, postgres_url, process, None)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


@contextmanager
def small_lake(
    postgres: tuple[int, str], template: str, s3_server: S3Access, blocks: int
) -> Iterator[tuple[str, S3Access]]:
    """Commit blocks and logs of chain 99 in ranges of 20 blocks; yield the registry's URL and the bucket.

    It is for fixtures of a whole module, whose tests only read it.
    """
    with cloned_database(*postgres, template) as url, fresh_bucket(s3_server) as access:
        with closing(Database(url)) as database:
            for stream in apply(database, job_text(to_block=blocks, chunk=20)).values():
                for block_range in BlockRange(0, blocks).split(20):
                    commit_rows(database, ObjectStore(access), stream, block_range, FULL)
        yield url, access


def _environment(postgres_url: str, access: S3Access, variables: Mapping[str, object]) -> dict[str, str]:
    found = {
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_S3_ENDPOINT": access.endpoint or "",
        "TRACE_S3_BUCKET": access.bucket,
        "AWS_ACCESS_KEY_ID": access.access_key or "",
        "AWS_SECRET_ACCESS_KEY": access.secret_key or "",
        "TRACE_QUERY_RUNNING": "2",
    }
    return found | {f"TRACE_QUERY_{name.upper()}": str(value) for name, value in variables.items()}


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def _until(is_so: Any) -> None:
    end = time.monotonic() + _START_SECONDS
    while not is_so():
        assert time.monotonic() < end, "the service did not start in time"
        time.sleep(0.02)
