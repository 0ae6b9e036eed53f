"""Starts the processes of queries: forked by a fork server, or as a new Python each where forking is not safe."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import Protocol

from trace_dagster.errors import Unavailable
from trace_dagster.query.protocol import QueryLimits

_CHILD = ("-P", "-m", "trace_dagster.query.child")
"""Arguments of Python. ``-P`` keeps the current folder out of the module path: its files are not ours."""
_FORK_SERVER = ("-P", "-m", "trace_dagster.query.fork_server")
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TRACE_STACK_ID")
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keep numpy and Arrow from starting threads when they are imported."""
_END_SECONDS = 2.0
_TRIES = 3
_REQUEST_SECONDS = 10.0
"""Longest time that a fork server may leave requests unread in a full buffer."""


class StartedProcess(Protocol):
    """A process that was started for one query. Only its own parent or fork server reaps it."""

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, or its negative signal. None if it has not ended by then, or cannot be known."""

    def has_ended(self) -> bool:
        """Return whether it has ended, or will because its fork server has."""

    def kill(self) -> None:
        """End it now, from any thread."""

    def close(self) -> None:
        """End it, wait for that a short time, and forget it."""

    def distrust(self) -> None:
        """Use nothing again that an attacker learned by a crash of the process."""

    def abandon(self) -> None:
        """End it by force: :meth:`kill` had no effect."""


class DirectProcess:
    """A new Python, for one query."""

    def __init__(self, wire: socket.socket, limits: QueryLimits) -> None:
        self._process = _python(_CHILD, wire, limits)

    def wait(self, seconds: float) -> int | None:
        """See :class:`StartedProcess`."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def has_ended(self) -> bool:
        """See :class:`StartedProcess`."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """See :class:`StartedProcess`."""
        self._process.kill()

    def close(self) -> None:
        """End it, and wait until it has ended."""
        self._process.kill()
        self._process.wait()

    def distrust(self) -> None:
        """Do nothing: the next process has another layout in memory."""

    abandon = kill


class ForkServer:
    """Starts processes by a fork server, which it starts when there is none. Thread-safe; the caller closes it."""

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def start(self, wire: socket.socket, _limits: QueryLimits) -> ForkedProcess:
        """Fork a process that serves one query over the socket. Returns at once; the query's process says READY.

        Raises Unavailable if no fork server takes the request, OSError if there are too many open sockets.
        """
        for _ in range(_TRIES):
            server = self._current()
            try:
                if process := server.fork(wire, self):
                    return process
            except (ConnectionError, TimeoutError):  # it has ended, or takes no requests
                self.leave(server)
                server.kill()
        raise Unavailable("the process that starts queries ended: try the query again")

    def leave(self, server: _Server) -> None:
        """Start further processes by another server. This one ends when its last process has ended."""
        with self._lock:
            if self._server is server:
                self._server = None
        server.close()

    def close(self) -> None:
        """End the server when its last process has ended; wait for that a short time."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()
            server.wait()

    def _current(self) -> _Server:
        with self._lock:
            if self._server is None:
                self._server = _Server(self._limits)
            return self._server


class _Server:
    """One fork server as its parent sees it."""

    def __init__(self, limits: QueryLimits) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _python(_FORK_SERVER, theirs, limits)
        self._control.settimeout(_REQUEST_SECONDS)
        self._lock = threading.Lock()
        self._reaper = threading.Thread(target=self._process.wait, name="query-fork-server", daemon=True)
        self._reaper.start()

    def fork(self, wire: socket.socket, owner: ForkServer) -> ForkedProcess | None:
        """Request a process; None if another thread has closed the server. Raises ConnectionError or TimeoutError if
        the server does not take requests.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            if self._control.fileno() < 0:
                ours.close()
                return None
            try:
                socket.send_fds(self._control, [b"f"], [wire.fileno(), theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ForkedProcess(ours, self, owner)

    def close(self) -> None:
        """Request no more processes."""
        with self._lock:
            self._control.close()

    def wait(self) -> None:
        """Wait a short time until the server has ended."""
        self._reaper.join(_END_SECONDS)

    def kill(self) -> None:
        """Kill the server. The system kills its processes then."""
        self._process.kill()


class ForkedProcess:
    """A process that a fork server forked. The server kills it when the socket of the two is shut down."""

    def __init__(self, end: socket.socket, server: _Server, owner: ForkServer) -> None:
        self._end = end
        self._server = server
        self._owner = owner

    def wait(self, seconds: float) -> int | None:
        """See :class:`StartedProcess`. The code is known once: the server reports it and closes the socket."""
        try:
            self._end.settimeout(seconds)
            return int(self._end.recv(16))
        except (OSError, ValueError):  # in time it reports nothing, or the server has ended
            return None

    def has_ended(self) -> bool:
        """See :class:`StartedProcess`."""
        found = select.poll()
        found.register(self._end, select.POLLIN)
        return bool(found.poll(0))

    def kill(self) -> None:
        """See :class:`StartedProcess`."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it, and wait until it has ended: until then it can write to its temporary folder."""
        self.kill()
        self.wait(_END_SECONDS)
        self._end.close()

    def distrust(self) -> None:
        """Leave the server: all its processes have the same layout in memory, and crashes can find it out."""
        self._owner.leave(self._server)

    def abandon(self) -> None:
        """Kill the server, which did not react, and with it all its processes."""
        self._owner.leave(self._server)
        self._server.kill()
        self._server.wait()


def can_fork() -> bool:
    """Return whether the fork server runs on this system. Elsewhere, libraries of the system may crash after a fork."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel
        return False
    return True


def _python(arguments: tuple[str, ...], passed: socket.socket, limits: QueryLimits) -> subprocess.Popen[bytes]:
    """Start a module with a socket. Neither arguments nor environment hold a secret."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return subprocess.Popen(
        [sys.executable, *arguments, str(passed.fileno()), json.dumps(asdict(limits))],
        pass_fds=(passed.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=kept | _NO_THREADS,
        start_new_session=True,
    )


def crashed(code: int) -> bool:
    """Return whether a process ended by a signal that nobody sent to it."""
    return code < 0 and -code not in (signal.SIGKILL, signal.SIGXCPU)
