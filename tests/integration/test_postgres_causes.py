"""Why Postgres gives no connection, and poolers before it: real PgBouncer, in every mode and with TLS."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing, contextmanager

import psycopg
import pytest

from tests.integration.test_commit import commit
from tests.support.left_out import PGBOUNCER, leave_out
from tests.support.nodes import environment
from tests.support.pgbouncer import PROGRAM, pgbouncer, with_tls
from tests.support.registry import apply, assert_registry_sound, ingesting, ranges
from tests.support.wrong_servers import banner_server
from trace_dagster.cli.commands import opened
from trace_dagster.config.settings import Settings, settings_from
from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.lite.ports import Ports
from trace_dagster.lite.postgres import dsn
from trace_dagster.lite.stack import Stack
from trace_dagster.registry.connection import Database, require_database
from trace_dagster.registry.migrations import is_current, migrate

pytestmark = pytest.mark.integration
needs_pgbouncer = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def installed():
    if PROGRAM is None:
        leave_out(PGBOUNCER)


def name_of(postgres_url):
    return psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]


@contextmanager
def pooled(open_folder, postgres, postgres_url, mode, **options):
    """Run PgBouncer before the test's server; yield the URL of the test's database through it."""
    port = Ports({}).take()
    with pgbouncer(open_folder / f"pgbouncer-{port}", postgres, port, mode, **options) as url:
        yield url + name_of(postgres_url)


def doors(url):
    """Return each way into the registry: at the start of the stack, of a migration, of a command, and of a pool."""
    return (
        lambda: require_database(url),
        lambda: migrate(url),
        lambda: is_current(url),
        lambda: run_one(url),
    )


def run_one(url):
    database = Database(url, connect_timeout_seconds=1)
    try:
        with database.transaction() as session:
            session.one("lock_apply")
    finally:
        database.close()


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (
            lambda port, password: dsn(port, "wrong", "postgres"),
            InvalidInput,
            "postgres refuses this user: .* said=password auth",
        ),
        (lambda port, password: dsn(port, password, "nope"), InvalidInput, 'no such database: .* said=database "nope"'),
        (lambda port, password: dsn(9, password), Unavailable, "nothing listens there; check TRACE_POSTGRES_URL"),
        (
            lambda port, password: dsn(port, password, "postgres").replace("127.0.0.1", "no-such-host.invalid"),
            Unavailable,
            "the host of postgres is not known",
        ),
        (
            lambda port, password: dsn(port, password, "postgres") + "?sslmode=require",
            InvalidInput,
            "postgres speaks no TLS, but sslmode requires it",
        ),
        (
            lambda port, password: dsn(port, password, "postgres") + "?sslmode=foo",
            InvalidInput,
            "a part of the URL is not valid",
        ),
        (
            lambda port, password: dsn(port, password, "postgres") + "?foo=1",
            InvalidInput,
            "a part of the URL is not valid",
        ),
    ],
    ids=["password", "database", "port", "host", "no tls", "mode", "parameter"],
)
def test_each_cause_is_told_apart_at_every_door(postgres, change, kind, text):
    port, password = postgres
    for door in doors(change(port, password)):
        with pytest.raises(TraceError, match=text) as caught:
            door()
        assert isinstance(caught.value, kind)
        assert password not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_port_that_is_no_postgres_is_named(postgres):
    with (
        banner_server() as port,
        pytest.raises(Unavailable, match="TLS handshake with postgres failed"),
    ):
        require_database(dsn(port, "pw") + "?connect_timeout=2")


@pytest.fixture(scope="module")
def server(installed, open_folder, postgres):
    """Run a PgBouncer that takes TLS connections only; yield its folder and the start of its URLs."""
    folder, port = open_folder / "tls", Ports({}).take()
    with pgbouncer(folder, postgres, port, "session", **with_tls(folder)) as url:
        yield folder, url


@needs_pgbouncer
class TestTls:
    @pytest.mark.parametrize(
        ("host", "options", "text"),
        [
            ("127.0.0.1", "sslmode=disable", "takes connections with TLS only: add .sslmode=require"),
            ("localhost", "sslmode=verify-full", "TLS certificate of postgres is not trusted"),
            ("localhost", "sslmode=verify-full&sslrootcert=system", "TLS certificate of postgres is not trusted"),
            ("127.0.0.1", "sslmode=verify-full&sslrootcert={ca}", "TLS certificate of postgres is for another host"),
        ],
    )
    def test_tls_errors_say_tls(self, server, postgres_url, host, options, text):
        folder, url = server
        options = options.format(ca=folder / "ca.pem")
        url = url.replace("127.0.0.1", host) + f"{name_of(postgres_url)}?{options}"
        for door in doors(url):
            with pytest.raises(InvalidInput, match=text):
                door()

    def test_a_trusted_certificate_works(self, server, postgres_url):
        folder, url = server
        url = url.replace("127.0.0.1", "localhost") + name_of(postgres_url)
        assert is_current(f"{url}?sslmode=verify-full&sslrootcert={folder / 'ca.pem'}")


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("size", ["1", "20"])
def test_a_pooler_that_shares_sessions_is_refused_at_the_start(open_folder, postgres, postgres_url, s3, mode, size):
    with pooled(open_folder, postgres, postgres_url, mode, default_pool_size=size) as url:
        for door in doors(url)[:3]:
            with pytest.raises(InvalidInput, match=r"leads through a pooler in transaction mode.*pool_mode = session"):
                door()
        with (
            pytest.raises(InvalidInput, match="pooler in transaction mode"),
            opened(settings_from(environment(url, s3))),
        ):
            pass


@needs_pgbouncer
def test_up_refuses_a_pooler_that_shares_sessions(open_folder, postgres, postgres_url, s3, tmp_path):
    with pooled(open_folder, postgres, postgres_url, "transaction") as url:
        stack = Stack(Settings.read({**environment(url, s3), "TRACE_HOME": str(tmp_path / "home")}))
        with pytest.raises(InvalidInput, match="leads through a pooler in transaction mode"), stack.running(print):
            pass


def commit_through(url, store):
    database = Database(url)
    try:
        blocks = apply(database)["blocks"]
        with ingesting(database, store) as ingest:
            for block_range in ranges(blocks, 3):
                commit(ingest, blocks, block_range)
        assert_registry_sound(database, store)
    finally:
        database.close()


DAGSTER = """
import sys
from dagster import DagsterInstance, DagsterEvent
from trace_dagster.dagster_instance.storage import TraceDagsterStorage
storage = TraceDagsterStorage(sys.argv[1])
storage.event_log_storage.optimize_for_webserver(5000, -1, 20)
storage.run_storage.get_runs_count()
storage.event_log_storage.add_dynamic_partitions("grid", ["a"])
print(storage.event_log_storage.get_dynamic_partitions("grid"))
"""


@needs_pgbouncer
@pytest.mark.parametrize("ignored", [{}, {"ignore_startup_parameters": "options"}], ids=["refuses", "ignores"])
def test_a_pooler_in_session_mode_serves_registry_and_dagster(open_folder, postgres, postgres_url, store, ignored):
    """PgBouncer refuses the option of a connection's start, or ignores it: Dagster's tables would be in `public`."""
    with pooled(open_folder, postgres, postgres_url, "session", **ignored) as url:
        assert migrate(url) == []
        commit_through(url, store)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DAGSTER, url], check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "['a']\n"), done.stderr
    with psycopg.connect(postgres_url) as connection:
        schemas = connection.execute("select table_schema from information_schema.tables where table_name = 'runs'")
        assert schemas.fetchall() == [("dagster",)]


def test_a_direct_connection_is_no_pooler(postgres_url):
    require_database(postgres_url)


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the system names its option otherwise")
def test_a_server_that_is_gone_without_a_word_is_noticed_after_a_minute(postgres_url):
    with closing(Database(postgres_url)) as database, database.connection() as connection:
        with socket.socket(fileno=os.dup(connection.fileno())) as tcp:
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            idle, interval, count = (tcp.getsockopt(socket.IPPROTO_TCP, each) for each in options)
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert idle + interval * count <= 60
