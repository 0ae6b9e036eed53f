"""Seeded fault injection for a running stack: kills processes and connections at a rate that each service can survive.

chaos = Chaos(state, seed=1, say=print) chaos.start() ... chaos.stop() chaos.strikes  # number of faults by kind
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

import psutil
import psycopg

from trace_dagster.config.running_stack import StackState
from trace_dagster.lite.processes import STACK_VARIABLE

Say = Callable[[str], None]

SERVICES = {
    "postgres": "/postgres",
    "s3": "weed",
    "code-server": "code-server",
    "daemon": "dagster._daemon",
}
"""Marks by which a service's command line is recognised."""

WITH_RUNS = "code-server and its runs"
"""The effect of a container's end or of the out-of-memory killer: no process remains that notices the end of
the runs.
"""

WEIGHTS = {
    "run": 5,
    "backends of ours": 3,
    "backends of dagster": 2,
    "daemon": 2,
    "code-server": 2,
    WITH_RUNS: 1,
    "postgres": 2,
    "s3": 2,
}
SERVICE_PAUSE_SECONDS = 25.0
"""Seconds. The supervisor stops restarting a service that dies more than five times a minute; faults stay below
that.
"""

CLIENT_PAUSE_SECONDS = {"run": 10.0, "backends of ours": 3.0, "backends of dagster": 3.0}
"""Seconds per kind. A run needs some seconds to start; one that is always killed earlier would test nothing."""

SETTLED_SECONDS = 8.0
"""Seconds; a younger service may still be starting."""

APPLICATION_NAME = "soak"
"""The application name of the test's own connections, which are not killed."""

_RUN_PIDS = """
select distinct substring(e.event from 'Started process for run .pid: ([0-9]+)')::int
from dagster.event_logs e join dagster.runs r on r.run_id = e.run_id
where r.status in ('STARTING', 'STARTED', 'CANCELING') and e.event like '%Started process for run%'
"""
_BACKENDS = """
select pid from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
  and application_name <> %s and (application_name = 'trace_dagster') = %s
order by pid
"""


class Chaos:
    """A thread that injects a fault every few seconds until it is stopped."""

    def __init__(
        self,
        state: StackState,
        *,
        seed: int,
        say: Say,
        every_seconds: tuple[float, float] = (2.0, 6.0),
        overlap: bool = False,
        most: int | None = None,
    ) -> None:
        self.strikes: Counter[str] = Counter()
        self._state = state
        self._say = say
        self._every = every_seconds
        self._overlap = overlap
        self._most = most
        self._random = Random(f"chaos/{seed}")
        self._last: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. The supervisor restarts what was killed."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _run(self) -> None:
        while not self._stopped.wait(self._random.uniform(*self._every)):
            if self._most is not None and self.strikes.total() >= self._most:
                return
            try:
                self._strike()
            except (psycopg.Error, psutil.Error):
                continue  # the target has ended already

    def _strike(self) -> None:
        for kind in self._order():
            done = self._kill_client(kind) if kind in CLIENT_PAUSE_SECONDS else self._kill_service(kind)
            if done:
                self._last[_victim(kind)] = time.monotonic()
                self.strikes[kind] += 1
                self._say(f"chaos: {done}")
                return

    def _order(self) -> Iterator[str]:
        """Yield kinds that may be next, in a seeded order that prefers the heavy ones and those not injected yet."""
        drawn = {kind: self._random.random() ** (1 / weight) for kind, weight in WEIGHTS.items()}
        now = time.monotonic()
        for kind in sorted(drawn, key=lambda kind: (self.strikes[kind] > 0, -drawn[kind])):
            pause = CLIENT_PAUSE_SECONDS.get(kind, SERVICE_PAUSE_SECONDS)
            if now - self._last.get(_victim(kind), -pause) >= pause:
                yield kind

    def _kill_service(self, kind: str) -> str | None:
        running = services(self._state)
        young = {name for name, process in running.items() if time.time() - process.create_time() < SETTLED_SECONDS}
        name = _victim(kind)
        if name not in running or name in young or (not self._overlap and (young or len(running) < len(SERVICES))):
            return None
        below = running[name].children(recursive=True) if kind == WITH_RUNS else []
        for process in (running[name], *below):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return f"SIGKILL {name} (pid {running[name].pid})" + (f" and {len(below)} processes below it" if below else "")

    def _kill_client(self, kind: str) -> str | None:
        return self._kill_run() if kind == "run" else self._kill_backends(ours=kind == "backends of ours")

    def _kill_run(self) -> str | None:
        with connected(self._state) as connection:
            pids = sorted(pid for (pid,) in connection.execute(_RUN_PIDS) if pid and self._is_of_the_stack(pid))
        if not pids:
            return None
        pid = self._random.choice(pids)
        psutil.Process(pid).kill()
        return f"SIGKILL run worker (pid {pid}, {len(pids)} runs)"

    def _kill_backends(self, *, ours: bool) -> str | None:
        with connected(self._state) as connection:
            pids = [pid for (pid,) in connection.execute(_BACKENDS, (APPLICATION_NAME, ours))]
            chosen = self._random.sample(pids, self._random.randint(1, min(4, len(pids)))) if pids else []
            for pid in chosen:
                connection.execute("select pg_terminate_backend(%s)", (pid,))
        whose = "trace_dagster" if ours else "dagster"
        return f"pg_terminate_backend on {len(chosen)} of {len(pids)} {whose} connections" if chosen else None

    def _is_of_the_stack(self, pid: int) -> bool:
        """Return whether the process belongs to the stack: process ids are reused, so it may be another program."""
        try:
            process = psutil.Process(pid)
            return (
                process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get(STACK_VARIABLE) == self._state.stack_id
            )
        except psutil.Error:
            return False


def _victim(kind: str) -> str:
    """Return the service that a kind kills: two kinds kill the code server."""
    return "code-server" if kind == WITH_RUNS else kind


def services(state: StackState) -> dict[str, psutil.Process]:
    """Return the supervisor's live child processes by service name."""
    found = {}
    for child in psutil.Process(state.pid).children():
        try:
            command = " ".join(child.cmdline()[:4])
            if child.status() == psutil.STATUS_ZOMBIE:
                continue
        except psutil.Error:
            continue
        for name, sign in SERVICES.items():
            if sign in command:
                found[name] = child
    return found


def connected(state: StackState) -> psycopg.Connection:
    """Open a short connection to the stack's database that is not killed."""
    url = state.environment()["TRACE_POSTGRES_URL"]
    return psycopg.connect(url, connect_timeout=3, application_name=APPLICATION_NAME, autocommit=True)
