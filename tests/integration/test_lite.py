"""The parts of the laptop stack: they start, stop, survive a kill, and leave no process behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from trace_dagster.cli.dagster_client import DagsterWeb
from trace_dagster.config.running_stack import environment_with_stack, load_state
from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.lite.home import Home
from trace_dagster.lite.ports import Ports
from trace_dagster.lite.postgres import dsn, postgres_service
from trace_dagster.lite.processes import STACK_VARIABLE, Child, Service, reap
from trace_dagster.lite.sockets import private_socket
from trace_dagster.lite.stack import Stack, down
from trace_dagster.registry.connection import Database
from trace_dagster.registry.migrations import is_current, migrate
from trace_dagster.registry.tokens import Tokens
from trace_dagster.store.objects import ObjectStore

pytestmark = pytest.mark.integration


def clean():
    return {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "AWS_"))}


def test_postgres_survives_a_kill_with_its_data(open_folder):
    port = Ports({}).take()
    child = Child(postgres_service(open_folder / "killed", port, "secret"), open_folder / "killed.log")
    try:
        child.wait_healthy()
        with psycopg.connect(dsn(port, "secret", "postgres"), autocommit=True) as connection:
            connection.execute("create table kept as select 42 as answer")
        os.kill(child.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(child.pid)] if psutil.pid_exists(child.pid) else [], timeout=5)
        while not child.dead:
            pass
        child.restart()
        child.wait_healthy()
        with psycopg.connect(dsn(port, "secret", "postgres")) as connection:
            assert connection.execute("select answer from kept").fetchone() == (42,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn(port, "wrong", "postgres"))
    finally:
        child.signal_stop()
        child.wait_stopped(10)
    assert child.dead


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port} is taken.*TRACE_PORT_WEB"):
            Ports({"TRACE_PORT_WEB": port}).take("TRACE_PORT_WEB")
    with pytest.raises(InvalidInput, match="TRACE_PORT_WEB must be a port"):
        Settings.read({"TRACE_PORT_WEB": "http"})


def test_a_home_of_a_newer_version_is_refused(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    (tmp_path / "home" / "home_version").write_text("99")
    with pytest.raises(InvalidInput, match="made by a newer trace_dagster"):
        Home(tmp_path / "home").prepare()


def test_a_newer_schema_is_refused_and_an_older_one_is_migrated(postgres_url):
    assert is_current(postgres_url)
    assert migrate(postgres_url) == []
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("insert into trace.migrations (name, sha256) values ('9999_future.sql', 'x')")
        with pytest.raises(InvalidInput, match="made by a newer trace_dagster"):
            migrate(postgres_url)
        connection.execute("drop schema trace, hot cascade")
    assert not is_current(postgres_url)
    assert migrate(postgres_url) == [
        "0001_registry.sql",
        "0002_wakeups.sql",
        "0003_verification.sql",
        "0004_scale.sql",
        "0005_gateways.sql",
        "0006_boundaries.sql",
        "0007_leases.sql",
        "0008_file_etags.sql",
        "0009_nodes.sql",
        "0010_levels.sql",
        "0011_lake.sql",
        "0012_hot.sql",
        "0013_queries.sql",
        "0014_change_order.sql",
    ]


def test_postgres_starts_again_beside_a_query_that_outlived_it(open_folder):
    port = Ports({}).take()
    child = Child(postgres_service(open_folder / "outlived", port, "secret"), open_folder / "outlived.log")
    try:
        child.wait_healthy()
        client = psycopg.connect(dsn(port, "secret", "postgres"), options="-c statement_timeout=30s")
        worker = psutil.Process(client.info.backend_pid)
        with ThreadPoolExecutor(1) as pool:
            query = pool.submit(client.execute, "select count(*) from generate_series(1, 1000000000000)")
            while "SELECT" not in worker.cmdline()[0]:
                time.sleep(0.05)
            os.kill(child.pid, signal.SIGKILL)
            while not child.dead:
                time.sleep(0.05)
            time.sleep(0.5)  # others notice the death at once
            assert worker.is_running()
            child.restart()
            child.wait_healthy()
            assert not worker.is_running()
            with pytest.raises(psycopg.OperationalError):
                query.result(10)
    finally:
        child.signal_stop()
        child.wait_stopped(10)


def test_a_second_start_of_postgres_leaves_the_first_alone(open_folder):
    port = Ports({}).take()
    service = postgres_service(open_folder / "first", port, "secret")
    first = Child(service, open_folder / "first.log")
    try:
        first.wait_healthy()
        with psycopg.connect(dsn(port, "secret", "postgres")) as client:
            second = Child(service, open_folder / "second.log")
            while not second.dead:
                time.sleep(0.05)
            assert 'lock file "postmaster.pid" already exists' in (open_folder / "second.log").read_text()
            assert client.execute("select 1").fetchone() == (1,)
    finally:
        first.signal_stop()
        first.wait_stopped(10)


def test_a_service_that_dies_again_while_it_starts_has_further_starts(tmp_path):
    program = """if True:
        import sys, time
        from pathlib import Path
        starts = Path("starts")
        starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
        if starts.read_text() == "xx":
            sys.exit("not this time")
        time.sleep(60)
    """
    starts = tmp_path / "starts"
    command = [sys.executable, "-c", program]
    toy = Service("toy", command, {}, lambda: starts.read_text() == "xxx", folder=tmp_path)
    stack, said = Stack(Settings.read({"TRACE_HOME": str(tmp_path / "home")})), []
    child = Child(toy, tmp_path / "toy.log")
    stack._children.append(child)
    try:
        while not starts.exists():
            time.sleep(0.05)
        child.signal_stop()
        with ThreadPoolExecutor(1) as pool:
            supervising = pool.submit(stack.supervise, said.append)
            deadline = time.monotonic() + 20
            while starts.read_text() != "xxx" and not supervising.done() and time.monotonic() < deadline:
                time.sleep(0.05)
            stack._stopping.set()
            supervising.result(20)
        assert [line.split(" log=")[0] for line in said] == [
            "toy died: starting it again",
            "toy ended at once: not this time",
            "toy died: starting it again",
        ]
        assert not child.dead
    finally:
        child.signal_stop()
        child.wait_stopped(5)


def test_secrets_are_made_once_and_closed(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    first = home.secrets()
    assert home.secrets() == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0
    assert first.postgres_password not in repr(first)


def test_one_stack_per_home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    (tmp_path / "lock").touch(0o644)  # as an earlier version made it
    with home.locked(), pytest.raises(InvalidInput, match="already runs in this TRACE_HOME"), home.locked():
        pass
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_service_that_dies_at_once_shows_the_end_of_its_log(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no http://u:hunter2@h/x today')"]
    child = Child(Service("toy", command, dict(os.environ), healthy=lambda: False), tmp_path / "toy.log")
    with pytest.raises(Unavailable, match=r"toy ended at once: no .* today") as caught:
        child.wait_healthy()
    assert "hunter2" not in str(caught.value)


def test_reap_ends_what_carries_the_id_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine = subprocess.Popen(command, env={**os.environ, STACK_VARIABLE: "abc"})
    other = subprocess.Popen(command, env={**os.environ, STACK_VARIABLE: "xyz"})
    try:
        deadline = time.monotonic() + 5
        while reap("abc") == 0 and time.monotonic() < deadline:
            pass
        assert mine.wait(5) != 0
        assert other.poll() is None
    finally:
        mine.kill()
        other.kill()
        mine.wait()
        other.wait()


def test_an_unreachable_server_of_the_users_is_named(tmp_path):
    environment = {**clean(), "TRACE_POSTGRES_URL": "postgresql://u:hunter2@127.0.0.1:9/x"}
    with (
        pytest.raises(Unavailable, match="nothing listens there; check TRACE_POSTGRES_URL") as caught,
        Stack(Settings.read({**environment, "TRACE_HOME": str(tmp_path / "home")})).running(lambda _: None),
    ):
        pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.timeout(170)
def test_a_detached_stack_uses_given_servers_and_a_killed_supervisor_leaves_nothing(open_folder, postgres_url, s3):
    """The stack uses external Postgres and S3. After a SIGKILL of the supervisor no process of the stack stays."""
    home = open_folder / "given servers"
    environment = {
        **clean(),
        "TRACE_HOME": str(home),
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_S3_ENDPOINT": s3.endpoint,
        "TRACE_S3_BUCKET": s3.bucket,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "TRACE_DEVCHAIN_BLOCKS": "20",
        "TRACE_WEB_PASSWORD": "correct horse",
    }
    state = Stack(Settings.read(environment)).start_detached(lambda _: None)
    try:
        assert is_current(postgres_url)
        assert {path.name for path in home.iterdir()}.isdisjoint({"postgres", "s3"})
        with pytest.raises(InvalidInput, match="already runs"):
            Stack(Settings.read(environment)).start_detached(lambda _: None)
        log = (home / "logs" / "supervisor.log").read_text()
        for service in ("devchain", "gateway", "follower", "queries", "code-server", "web-server", "daemon"):
            assert f" info lite service_started service={service} pid=" in log
        members = [p for p in psutil.process_iter() if _stack_id(p) == state.stack_id]
        assert len(members) >= 4
        assert [p.name for p in home.iterdir() if p.stat().st_mode & 0o077] == []
        assert {_module(p) for p in members if "TRACE_WEB_PASSWORD" in p.environ()} == {
            "trace_dagster.dagster_instance.web"
        }
        assert [path for p in members for path in _sockets(p) if not path.is_relative_to(home)] == []
        assert {_module(p) for p in members if _tcp_ports(p)} == {
            "trace_dagster.devchain",
            "trace_dagster.gateway",
            "trace_dagster.cli.main",  # the query service
            "trace_dagster.dagster_instance.web",
        }, "Dagster's code server runs code without asking for a credential: it must not listen on a port"
        in_the_shell = Settings.read(environment_with_stack({**clean(), "TRACE_HOME": str(home)}))
        assert in_the_shell.web_password == "correct horse"
        token = in_the_shell.query.token.get_secret_value()
        with closing(Database(postgres_url)) as database:
            assert Tokens(database).caller(token).name.startswith("local-")
        assert token not in "".join(path.read_text() for path in (home / "logs").glob("*.log"))
        assert "/login#" not in (home / "logs" / "supervisor.log").read_text()
        assert [p for p in members if token in json.dumps(p.environ())] == []
        with pytest.raises(InvalidInput, match="asks for a password"):
            DagsterWeb(state.web_url).reload([])
        DagsterWeb(state.web_url, in_the_shell.web_password).reload([])
        os.kill(state.pid, signal.SIGKILL)
        left = psutil.wait_procs(members, timeout=60)[1]
        # if no process reaps orphans, an ended process stays as a zombie
        assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
        assert load_state(home) is None
    finally:
        down(home)
        reap(state.stack_id)


def _module(process: psutil.Process) -> str:
    """Return the module that a Python process runs."""
    words = process.cmdline()
    return words[words.index("-m") + 1] if "-m" in words else ""


def _sockets(process: psutil.Process) -> list[Path]:
    """Return the unix sockets that a process listens on."""
    return [Path(str(each.laddr)) for each in process.net_connections("unix") if each.laddr]


def _tcp_ports(process: psutil.Process) -> list[int]:
    return [each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]


def _stack_id(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(STACK_VARIABLE)
    except psutil.Error:
        return None


def test_a_socket_is_in_its_folder_unless_its_path_cannot_be_one(tmp_path):
    assert private_socket(tmp_path, "code.sock") == tmp_path / "code.sock"
    for folder in (tmp_path / ("long" * 25), tmp_path / "100% full", tmp_path / "a#b"):
        path = private_socket(folder, "code.sock")
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        path.unlink()
        path.parent.rmdir()


def test_others_cannot_connect_to_a_childs_socket_whatever_the_umask(tmp_path):
    program = "import socket, time; socket.socket(socket.AF_UNIX).bind('toy.sock'); time.sleep(60)"
    made, folder = tmp_path / "toy.sock", tmp_path / "folder"
    folder.mkdir()
    toy = Service("toy", [sys.executable, "-c", program], {}, made.exists, folder=tmp_path, leaves=[made, folder])
    given = os.umask(0)
    try:
        child = Child(toy, tmp_path / "toy.log")
        child.wait_healthy()
        assert made.stat().st_mode & 0o022 == 0
    finally:
        os.umask(given)
        child.signal_stop()
        child.wait_stopped(5)
    assert not made.exists()
    assert not folder.exists()


def test_down_without_a_stack_says_so(tmp_path):
    assert down(Path(tmp_path)) is False


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(InvalidInput, match="other files"):
        Home(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_killed_initdb_is_done_again(open_folder):
    folder = open_folder / "half made"
    script = (
        "import sys; from pathlib import Path; from trace_dagster.lite.postgres import postgres_service;"
        "postgres_service(Path(sys.argv[1]), 1, 'secret')"
    )
    first = subprocess.Popen([sys.executable, "-c", script, str(folder)], start_new_session=True)
    while not list(folder.glob("data*/PG_VERSION")):
        assert first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(10)
    assert not (folder / "data" / "PG_VERSION").exists()
    port = Ports({}).take()
    child = Child(postgres_service(folder, port, "secret"), open_folder / "half-made.log")
    try:
        child.wait_healthy()
    finally:
        child.signal_stop()
        child.wait_stopped(10)


def test_an_s3_server_of_the_users_needs_its_keys(tmp_path, postgres_url, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {
        **clean(),
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_S3_ENDPOINT": "http://127.0.0.1:9",
    }
    with (
        pytest.raises(InvalidInput, match="no credentials for the object store: set AWS_ACCESS_KEY_ID"),
        Stack(Settings.read({**environment, "TRACE_HOME": str(tmp_path / "home")})).running(lambda _: None),
    ):
        pass


def test_a_proxy_in_the_environment_does_not_come_between(s3, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    store = ObjectStore(s3)
    store.put_if_absent("behind/a/proxy", b"kept")
    assert store.get("behind/a/proxy")[0] == b"kept"


def test_grpc_ports_stay_below_the_ephemeral_ones():
    assert max(Ports({}).take(with_grpc=True) for _ in range(300)) + 10_000 <= 32_000


def test_every_process_of_a_stack_carries_its_id(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = Child(Service("toy", command, {}, healthy=lambda: True), tmp_path / "toy.log", "a-stack-of-its-own")
    assert reap("a-stack-of-its-own") == 1
    child.wait_stopped(5)
