"""Real services for tests: one Postgres and one S3 server per session, a fresh database and bucket per test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import settings

from trace_dagster.lite.home import Home
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.postgres import dsn, postgres_service
from trace_dagster.lite.processes import Child
from trace_dagster.lite.s3 import s3_service
from trace_dagster.messages import redaction
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.connection import Database
from trace_dagster.registry.migrations import migrate
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore, ensure_bucket

pytest_plugins = ["tests.support.left_out"]

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

for name in [
    name for name in os.environ if name.startswith(("TRACE_RPC", "TRACE_POSTGRES", "TRACE_S3", "TRACE_CRYO", "AWS_"))
]:
    del os.environ[name]  # tests start their own services, whatever the shell's environment configures

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's job in the background, whose children ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _unconfigured_logs() -> Iterator[None]:
    """Undo ``configure_logs`` if a test ran an entry point in this process: pytest attaches its handlers to the
    root.
    """
    yield
    logger = logging.getLogger("trace_dagster")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _forgotten_secrets() -> Iterator[None]:
    """Forget the secrets that a test protects: a word of its URLs must not be hidden in the errors of other tests."""
    known = redaction._known
    before = set(known._secrets), set(known._public)
    yield
    known._secrets, known._public = before
    known._index = None


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """Create a folder that every user can enter: pytest's own is closed to others, and Postgres is another user
    under root.
    """
    with TemporaryDirectory(prefix="trace-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def postgres(open_folder) -> Iterator[tuple[int, str]]:
    """Run a Postgres server; yield (port, password)."""
    folder = open_folder / "pg"
    folder.mkdir()
    port = Ports({}).take()
    service = postgres_service(folder / "postgres", port, "test-password")
    with (folder / "postgres" / "data" / "postgresql.conf").open("a") as conf:
        conf.write("fsync = off\n")  # no test outlives a crash of the system, which is all that fsync is for
    child = Child(service, folder / "postgres.log")
    try:
        child.wait_healthy()
        yield port, "test-password"
    finally:
        child.signal_stop()
        child.wait_stopped(10)


@pytest.fixture(scope="session")
def template_database(postgres) -> str:
    """Create a migrated database that others are cloned from."""
    port, password = postgres
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute("create database template_trace")
    migrate(dsn(port, password, "template_trace"))
    return "template_trace"


@pytest.fixture
def postgres_url(postgres, template_database) -> Iterator[str]:
    """Create a fresh, migrated database."""
    with cloned_database(*postgres, template_database) as url:
        yield url


@contextmanager
def cloned_database(port: int, password: str, template: str) -> Iterator[str]:
    """Create a database from a template; drop it at the end of the block."""
    name = f"t{uuid4().hex}"
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        yield dsn(port, password, name)
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def database(postgres_url) -> Iterator[Database]:
    """Open connections to a fresh registry."""
    opened = Database(postgres_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[S3Access]:
    """Run an S3 server."""
    home = Home(tmp_path_factory.mktemp("s3home"))
    home.prepare()
    ports = Ports({})
    port = ports.take(with_grpc=True)
    secrets = home.secrets()
    access = S3Access("first", secrets.s3_access_key, secrets.s3_secret_key, f"http://{HOST}:{port}")
    child = Child(s3_service(home.path / "s3", ports, secrets, access, port), home.logs / "s3.log")
    try:
        child.wait_healthy()
        yield access
    finally:
        child.signal_stop()
        child.wait_stopped(10)


@pytest.fixture
def s3(s3_server) -> Iterator[S3Access]:
    """Create a bucket on the session's server, which has room for about 70 at a time."""
    with fresh_bucket(s3_server) as access:
        yield access


@contextmanager
def fresh_bucket(s3_server: S3Access) -> Iterator[S3Access]:
    """Create a bucket; delete it at the end of the block."""
    access = S3Access(f"b{uuid4().hex}", s3_server.access_key, s3_server.secret_key, s3_server.endpoint)
    ensure_bucket(access)
    yield access
    with suppress(ClientError, BotoCoreError):  # a test may have ended the server, or the bucket
        ObjectStore(access)._client.delete_bucket(Bucket=access.bucket)


@pytest.fixture(scope="module")
def runner() -> Iterator[QueryRunner]:
    """Run a fork server of queries, which takes half a second to start: a module's queries share it."""
    with QueryRunner(ahead=2) as running:
        yield running


@pytest.fixture
def store(s3) -> ObjectStore:
    """Return a store over a fresh bucket."""
    return ObjectStore(s3)
