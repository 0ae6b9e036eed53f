"""Child processes of the supervisor. Each has its own log file and process group, and ends with the supervisor."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trace_dagster.config.running_stack import STACK_VARIABLE
from trace_dagster.errors import Unavailable
from trace_dagster.messages.logs import component_log
from trace_dagster.messages.redaction import redact

_PR_SET_PDEATHSIG = 1
_LOG_TAIL_LINES = 8
_POLL_SECONDS = 0.05
_log = component_log("lite")


@dataclass(slots=True)
class Service:
    """How to run one server, and how to find out that it is healthy."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    healthy: Callable[[], bool]
    start_seconds: float = 60.0
    stop_signal: int = signal.SIGTERM
    user: int | None = None
    folder: Path | None = None
    restarts: int = 5
    """How often the supervisor restarts it within a minute; then the stack ends."""

    before_start: Callable[[], None] = lambda: None
    """Called before each start of the process."""

    leaves: Sequence[Path] = ()
    """Sockets that the process makes, then their folders if nothing else is in them; removed when it has stopped."""


class Child:
    """Process of one service: starts it, waits until it is healthy, restarts and stops it."""

    def __init__(self, service: Service, log: Path, stack_id: str | None = None) -> None:
        self.service = service
        self._log = log
        self._mark = {STACK_VARIABLE: stack_id} if stack_id else {}
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def wait_healthy(self) -> None:
        """Wait until it is healthy. Raises Unavailable, with the end of its log, if it dies or takes too long."""
        deadline = time.monotonic() + self.service.start_seconds
        while not self.service.healthy():
            if self.dead or time.monotonic() > deadline:
                happened = "ended at once" if self.dead else f"was not healthy in {self.service.start_seconds:.0f} s"
                raise Unavailable(f"{self.service.name} {happened}: {self._log_tail()}", log=self._log)
            time.sleep(_POLL_SECONDS)

    def restart(self) -> None:
        """Start the process again after it died."""
        code = self._process.returncode
        _log.warning("service_died", service=self.service.name, pid=self.pid, exit_code=code, reason="restarted")
        self._process = self._spawn()

    def signal_stop(self) -> None:
        """Send the signal that stops it."""
        self._send(self.service.stop_signal)

    def wait_stopped(self, seconds: float) -> None:
        """Wait up to ``seconds``, then kill the rest of its process group."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._send(signal.SIGKILL)
            self._process.wait()
        self._send(signal.SIGKILL)  # other processes of its group
        for path in self.service.leaves:
            _remove(path)
        _log.event("service_ended", service=self.service.name, pid=self.pid, exit_code=self._process.returncode)

    def _spawn(self) -> subprocess.Popen[bytes]:
        user = self.service.user
        self.service.before_start()
        with self._log.open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                list(self.service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.service.environment, **self._mark},
                cwd=self.service.folder,
                start_new_session=True,
                umask=_strict_umask(),
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (the supervisor starts children from one thread)
                **identity_of(user),
            )
        _log.event("service_started", service=self.service.name, pid=process.pid)
        return process

    def _send(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return redact(" | ".join(line.strip() for line in lines if line.strip()))[-600:] or "its log is empty"


def reap(stack_id: str) -> int:
    """Kill every process that has a stack's id in its environment. Returns the number of processes."""
    ended = 0
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(STACK_VARIABLE) == stack_id:
                process.kill()
                ended += 1
        except (psutil.Error, OSError):
            continue
    return ended


def identity_of(user: int | None) -> dict[str, Any]:
    """Return the Popen arguments that run a child as ``user`` with only its own group; none for None."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def _strict_umask() -> int:
    """Return this process's umask without the right of others to write: who can write to a socket can connect."""
    given = os.umask(0o022)
    os.umask(given)
    return given | 0o022


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.rmdir() if path.is_dir() else path.unlink()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
