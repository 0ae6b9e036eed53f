"""The fork server: a process that has DuckDB, httpfs and Arrow loaded, and forks a child for each query.

It never receives SQL, rows, names or keys: a request is one byte and two descriptors. One is the socket of the query,
which only the child reads. The other one stands for the child: the server reports there how it ended, and kills the
child when the parent shuts it down. Only the server reaps its children, so no process id that it kills can be that of
another process.

Nothing but the calling thread survives a fork. The server therefore has one thread, and refuses to fork with more.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import duckdb

from trace_dagster.query.child import PreparedChild
from trace_dagster.query.protocol import QueryLimits

_SET_DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""
_SYSTEM = ctypes.CDLL(None)
_DESCRIPTORS = 2
"""Of a request: the query's socket, and the one that stands for its child."""


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    end: int
    """A pidfd. It can be read when the process has ended."""
    parent: socket.socket


def main() -> None:
    """Fork children until the parent closes its socket. Arguments: the socket's descriptor, the limits as JSON."""
    control, limits = socket.socket(fileno=int(sys.argv[1])), QueryLimits(**json.loads(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    duckdb.default_connection().close()  # the import opens it, with a thread for each processor
    server = _ForkServer(control, PreparedChild(limits))
    gc.collect()
    gc.freeze()  # otherwise the collector writes to every object, and each child copies the memory of all of them
    server.run()
    os._exit(0)


class _ForkServer:
    """Forks, kills and reaps. It ends when it can get no more requests and its last child has ended."""

    def __init__(self, control: socket.socket, prepared: PreparedChild) -> None:
        self._control = control
        self._prepared = prepared
        self._pid = os.getpid()
        self._is_open = True
        self._by_end: dict[int, _Child] = {}
        self._by_parent: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Handle one event after the other, a request last: its descriptors may have the numbers of closed ones."""
        while self._is_open or self._by_end:
            events = self._poll.poll()
            for descriptor, _ in sorted(events, key=lambda event: event[0] == self._control.fileno()):
                if descriptor in self._by_end:
                    self._reap(self._by_end[descriptor])
                elif descriptor in self._by_parent:
                    self._kill(self._by_parent[descriptor])
                elif descriptor == self._control.fileno():
                    self._take_request()

    def _take_request(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, 1, _DESCRIPTORS)
        if not data:
            self._poll.unregister(self._control)
            self._is_open = False
            return
        if len(descriptors) == _DESCRIPTORS:
            wire, parent = descriptors
            self._fork(wire, socket.socket(fileno=parent))
            descriptors = [wire]
        for descriptor in descriptors:
            os.close(descriptor)  # if no child holds the query's socket, the parent sees its end

    def _fork(self, wire: int, parent: socket.socket) -> None:
        _require_one_thread()
        pid = -1
        try:
            pid = os.fork()
            if pid == 0:
                self._become_child(wire)
            child = _Child(pid, os.pidfd_open(pid), parent)
        except OSError:  # the parent sees that there is no child
            parent.close()
            if pid > 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return
        self._by_end[child.end] = self._by_parent[parent.fileno()] = child
        self._poll.register(child.end, select.POLLIN)
        self._poll.register(parent, select.POLLIN)

    def _become_child(self, wire: int) -> None:
        """Serve one query in the new process. Never returns."""
        try:
            os.setsid()
            _end_with(self._pid)
            _close_all_but(wire)
            self._prepared.serve(Connection(wire))
        finally:
            os._exit(1)

    def _kill(self, child: _Child) -> None:
        """Kill a child that its parent gave up. It is not reaped yet, so its process id is still its own."""
        self._poll.unregister(child.parent)
        del self._by_parent[child.parent.fileno()]
        os.kill(child.pid, signal.SIGKILL)

    def _reap(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._poll.unregister(child.end)
        os.close(child.end)
        del self._by_end[child.end]
        if self._by_parent.pop(child.parent.fileno(), None):
            self._poll.unregister(child.parent)
        with suppress(OSError):  # the parent has closed its end
            child.parent.send(str(os.waitstatus_to_exitcode(status)).encode())
        child.parent.close()


def _require_one_thread() -> None:
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"the fork server has {threads} threads: a library started one when it was imported")


def _end_with(server: int) -> None:
    """Let the system kill this process when the server ends, whatever it is doing then."""
    _SYSTEM.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


def _close_all_but(wire: int) -> None:
    """Close what the server has open: its own socket, and those of other queries' children."""
    os.closerange(3, wire)
    os.closerange(wire + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)


if __name__ == "__main__":
    main()
