"""The processes of queries: started ahead, forked or not, ended with their parent, and apart from each other."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.query_processes import SECONDS, await_end, await_reaped, awaited_children, children, fork_servers
from trace_dagster.errors import Cancelled, InvalidInput, TooLate, TraceError, Unavailable
from trace_dagster.query import process_start, query_process
from trace_dagster.query.cancellation import Cancellation
from trace_dagster.query.runner import QueryRunner
from trace_dagster.store.access import S3Access

pytestmark = pytest.mark.integration
ACCESS = S3Access("bucket", "a-key", "a-secret", "http://127.0.0.1:1")
ENDLESS = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 7"
UNINTERRUPTIBLE = "select levenshtein(s, s || 'b') from (select string_agg('a', '') as s from range(200000))"
CRASH = "select json_structure(s) from (select string_agg('[', '') || string_agg(']', '') as s from range(3000000))"


@pytest.fixture(params=[True, False], ids=["forked", "direct"])
def runner(request):
    with QueryRunner(ahead=1, refill=request.param) as runner:
        yield runner


@pytest.fixture
def forking():
    with QueryRunner(ahead=2) as runner:
        yield runner


def rows(runner, sql="select 1", **options):
    return runner.query(sql, [], ACCESS, **options).rows


class Asked(threading.Thread):
    """One query that another thread runs."""

    def __init__(self, runner, sql, **options):
        super().__init__()
        self._arguments = (runner, sql, options)
        self.outcome = None
        self.start()

    def run(self):
        runner, sql, options = self._arguments
        try:
            self.outcome = rows(runner, sql, **options)
        except TraceError as error:
            self.outcome = error

    def result(self, seconds=SECONDS):
        self.join(seconds)
        assert not self.is_alive()
        return self.outcome


def await_running(pids):
    """Return the one of these processes that works on a query."""
    deadline = time.monotonic() + SECONDS
    spent = {pid: psutil.Process(pid).cpu_times().user for pid in pids}
    while time.monotonic() < deadline:
        time.sleep(0.05)
        for pid, before in spent.items():
            if psutil.Process(pid).cpu_times().user > before + 0.3:
                return pid
    raise AssertionError(pids)


def test_a_process_serves_one_query_and_another_one_takes_its_place(forking):
    before = awaited_children(2)
    assert rows(forking) == [(1,)]
    await_end(before - children())
    assert len(before & awaited_children(2)) == 1
    assert len(fork_servers()) == 1


def test_a_process_has_ended_when_its_query_has(runner):
    (pid,) = awaited_children(1)
    assert rows(runner, "select count(distinct hash(range)) from range(1000000)")
    assert pid not in children()


def test_for_one_query_no_fork_server_is_started():
    with QueryRunner(refill=False) as runner:
        assert rows(runner) == [(1,)]
        assert fork_servers() == set()
    assert children() == set()


def test_a_closed_runner_keeps_no_process():
    runner = QueryRunner(ahead=2)
    servers = fork_servers()
    assert runner.query("select 1", [], ACCESS, meanwhile=runner.close).rows == [(1,)]
    awaited_children(0)
    await_end(servers)
    with pytest.raises(Unavailable, match="queries have ended here"):
        rows(runner)


@pytest.mark.parametrize("refill", [True, False], ids=["forked", "direct"])
def test_a_process_holds_no_secret_in_its_arguments_or_environment(monkeypatch, refill):
    monkeypatch.setenv("TRACE_S3_SECRET_KEY", ACCESS.secret_key)
    with QueryRunner(refill=refill):
        for process in map(psutil.Process, awaited_children(1) | fork_servers()):
            assert ACCESS.secret_key not in " ".join([*process.cmdline(), *process.environ().values()])


def test_a_process_loads_no_code_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "duckdb.py").write_text("open('loaded', 'w')")
    monkeypatch.chdir(tmp_path)
    for refill in (True, False):
        with QueryRunner(refill=refill) as runner:
            assert rows(runner) == [(1,)]
    assert not (tmp_path / "loaded").exists()


def test_a_forked_process_has_its_own_socket_open_and_nothing_else(forking):
    Asked(forking, "select 1").result()
    for pid in awaited_children(2):
        deadline = time.monotonic() + SECONDS
        while opened_by(pid) != ["/dev/null"] * 3 + ["socket"]:  # it may be about to close the others
            assert time.monotonic() < deadline, opened_by(pid)
            time.sleep(0.02)


def opened_by(pid):
    """Return what a process has open, sorted."""
    with suppress(FileNotFoundError):  # one was closed meanwhile
        opened = [os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]
        return sorted(each.partition(":")[0] for each in opened)
    return []


def test_the_fork_server_never_holds_the_text_of_a_query(forking):
    awaited_children(2)
    marker = f"marker {os.urandom(8).hex()}"
    asked = Asked(forking, f"{ENDLESS} and 'x' <> '{marker}'", timeout_seconds=20)
    running = await_running(awaited_children(2))
    assert memory_holds(running, marker)
    (server,) = fork_servers()
    assert not memory_holds(server, marker)
    assert not any(memory_holds(pid, marker) for pid in children() - {running})
    os.kill(running, signal.SIGKILL)
    assert isinstance(asked.result(), InvalidInput)


def memory_holds(pid: int, text: str) -> bool:
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            first, last = (int(each, 16) for each in place.split("-"))
            if rights.startswith("rw"):
                memory.seek(first)
                with suppress(OSError):
                    if text.encode() in memory.read(last - first):
                        return True
    return False


def test_forked_processes_do_not_share_random_numbers(forking):
    sql = "select uuid()::varchar, random(), md5(random()::varchar) from range(2)"
    found = [row for _ in range(4) for row in rows(forking, sql)]
    assert all(len(set(column)) == 8 for column in zip(*found, strict=True))


def test_processes_end_with_their_parent():
    script = (
        "from trace_dagster.query.runner import QueryRunner; from trace_dagster.store.access import S3Access;"
        " r = QueryRunner(ahead=2); print(flush=True);"
        f" r.query({UNINTERRUPTIBLE!r}, [], S3Access('b', 'k', 's', 'http://127.0.0.1:1'))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        parent.stdout.readline()
        await_running(awaited_children(2, parent.pid))
        pids = children(parent.pid) | fork_servers(parent.pid)
        assert len(pids) == 3
        parent.kill()
    await_end(pids)


def test_a_query_ends_when_the_fork_server_is_killed_and_the_next_one_runs(forking):
    before = awaited_children(2)
    asked = Asked(forking, UNINTERRUPTIBLE)
    await_running(before)
    (server,) = fork_servers()
    os.kill(server, signal.SIGKILL)
    assert isinstance(asked.result(), Unavailable)
    await_end(before)
    assert rows(forking) == [(1,)]
    awaited_children(2)
    assert server not in fork_servers()


def test_a_deadline_holds_when_the_fork_server_is_stopped(forking):
    before = awaited_children(2)
    asked = Asked(forking, UNINTERRUPTIBLE, timeout_seconds=4)
    (server,) = fork_servers()
    await_running(before)
    os.kill(server, signal.SIGSTOP)
    assert isinstance(asked.result(), TooLate)
    await_end(before)
    assert rows(forking) == [(1,)]


def test_a_fork_server_that_is_stuck_is_replaced(forking, monkeypatch):
    monkeypatch.setattr(query_process, "_START_SECONDS", 10.0)
    assert rows(forking) == [(1,)]
    (server,) = fork_servers()
    os.kill(server, signal.SIGSTOP)
    try:
        for _ in range(3):  # those of the processes that were ready, and those that can only come from another server
            assert rows(forking) == [(1,)]
        assert server not in fork_servers()
    finally:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGCONT)


def test_processes_that_died_while_they_waited_are_replaced(runner):
    for pid in awaited_children(1):
        os.kill(pid, signal.SIGKILL)
        await_end([pid])
        await_reaped(pid)
    assert rows(runner) == [(1,)]


def test_after_a_crash_processes_come_from_another_fork_server(forking):
    """A process forked by the same server has the same layout in memory, which crashes can find out step by step."""
    awaited_children(2)
    (server,) = fork_servers()
    other = Asked(forking, ENDLESS, timeout_seconds=20)
    with pytest.raises(InvalidInput, match=r"crashed its process \(SIG"):
        rows(forking, CRASH)
    assert rows(forking) == [(1,)]
    assert fork_servers() - {server}
    assert isinstance(other.result(), TooLate)
    await_end([server])


@pytest.mark.parametrize("sql", [ENDLESS, UNINTERRUPTIBLE])
def test_a_query_ends_at_its_own_deadline(runner, sql):
    (pid,) = awaited_children(1)
    with pytest.raises(TooLate, match="too long"):
        rows(runner, sql, timeout_seconds=0.5)
    await_end([pid], 5)


def test_a_cancelled_query_ends_at_once(runner):
    (pid,) = awaited_children(1)
    cancellation = Cancellation()
    asked = Asked(runner, UNINTERRUPTIBLE, cancellation=cancellation)
    await_running([pid])
    cancellation.ask()
    assert isinstance(asked.result(), Cancelled)
    await_end([pid])
    assert rows(runner, cancellation=Cancellation()) == [(1,)]


def test_a_query_that_was_cancelled_before_it_begins_does_not_begin(runner):
    cancellation = Cancellation()
    cancellation.ask()
    with pytest.raises(Cancelled):
        rows(runner, cancellation=cancellation)


def test_cancelling_a_query_that_has_ended_does_nothing(runner):
    cancellation = Cancellation()
    assert rows(runner, cancellation=cancellation) == [(1,)]
    cancellation.ask()
    assert rows(runner) == [(1,)]


LIMITED = """
import os, resource, signal
from trace_dagster.query import fork_server
run = fork_server._ForkServer.run
def run_limited(self):
    if os.getuid() == 0:  # the limit does not apply to root
        os.setuid(61234)
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, (0, most)))
    signal.signal(signal.SIGUSR2, lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, (most, most)))
    run(self)
fork_server._ForkServer.run = run_limited
fork_server.main()
"""


def test_a_query_says_so_if_the_system_starts_no_process_and_the_next_one_runs(monkeypatch):
    monkeypatch.setattr(process_start, "_FORK_SERVER", ("-c", LIMITED))
    with QueryRunner(ahead=1) as runner:
        awaited_children(1)
        (server,) = map(psutil.Process, fork_servers())
        signal_limit(server, signal.SIGUSR1, "0")
        assert rows(runner) == [(1,)]
        with pytest.raises(Unavailable, match="a query process did not start: try the query again"):
            rows(runner)
        signal_limit(server, signal.SIGUSR2, str(resource.getrlimit(resource.RLIMIT_NPROC)[1]))
        assert rows(runner) == [(1,)]
        assert fork_servers() == {server.pid}


def signal_limit(server: psutil.Process, number: int, most: str) -> None:
    """Let a server change how many processes it may start, and wait until it did."""
    server.send_signal(number)
    deadline = time.monotonic() + SECONDS
    while f"Max processes {most} " not in " ".join(Path(f"/proc/{server.pid}/limits").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


THREADED = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start();"
SERVER = "from trace_dagster.query.fork_server import main; main()"


def test_a_fork_server_with_a_second_thread_forks_nothing(monkeypatch):
    monkeypatch.setattr(process_start, "_FORK_SERVER", ("-c", THREADED + SERVER))
    with QueryRunner() as runner, pytest.raises(Unavailable, match="did not start"):
        rows(runner)


TAKEN_OVER = """
import json, sys, time
from multiprocessing.connection import Connection
def serve(wire):
    wire.send_bytes(b"ready")
    wire.recv_bytes()
    {answer}
"""
DIRECTLY = "\nserve(Connection(int(sys.argv[1])))"
FORKED = "\nfrom trace_dagster.query.child import PreparedChild\nPreparedChild.serve = lambda _, wire: serve(wire)\n"
ANSWERS = [
    'wire.send_bytes(b"[" * 100000)',
    'wire.send_bytes(b"no json")',
    'wire.send_bytes(b"7")',
    'wire.send_bytes(json.dumps({"relations": ["../etc"]}).encode())',
    "wire.send_bytes(bytes(100 << 20))",
    'wire.send_bytes(json.dumps({"relations": []}).encode()); wire.recv_bytes();'
    " wire.send_bytes(b'{\"columns\": []}')\n"
    '    while True: wire.send_bytes(b\'{"rows": [["%s"]]}\' % (b"x" * 1000000))',
    "wire.close(); time.sleep(60)",
]


@pytest.mark.parametrize("refill", [True, False], ids=["forked", "direct"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_process_that_was_taken_over_cannot_harm_its_parent(monkeypatch, answer, refill):
    code = TAKEN_OVER.replace("{answer}", answer)
    monkeypatch.setattr(process_start, "_CHILD", ("-c", code + DIRECTLY))
    monkeypatch.setattr(process_start, "_FORK_SERVER", ("-c", code + FORKED + SERVER))
    before = psutil.Process().memory_info().rss
    with QueryRunner(refill=refill) as runner, pytest.raises(Unavailable, match="no valid answer"):
        rows(runner)
    assert psutil.Process().memory_info().rss - before < 300 << 20


def test_a_process_that_is_forked_writes_no_core_file(forking):
    for pid in awaited_children(2):
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
