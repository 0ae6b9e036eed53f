"""The processes of a query runner, as the system shows them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

from trace_dagster.query.query_stream import QueryStream

SECONDS = 60.0
"""A machine that runs other tests as well is slow."""


def fork_servers(parent: int | None = None) -> set[int]:
    """Return the fork servers of this process, or of another one."""
    return {child.pid for child in psutil.Process(parent).children() if _runs(child, "fork_server")}


def children(parent: int | None = None) -> set[int]:
    """Return the processes of queries that run or wait, of this process or of another one."""
    found = {child.pid for child in psutil.Process(parent).children() if _runs(child, "trace_dagster.query.child")}
    for server in fork_servers(parent):
        found |= {child.pid for child in psutil.Process(server).children() if child.status() != psutil.STATUS_ZOMBIE}
    return found


def awaited_children(count: int, parent: int | None = None) -> set[int]:
    """Return the processes of queries once there are as many."""
    deadline = time.monotonic() + SECONDS
    while len(found := children(parent)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def child_of(stream: QueryStream) -> psutil.Process:
    """Return the process of a stream. Its parent does not know its id, so the runner must have no other one."""
    assert not stream._process.has_ended()
    (pid,) = awaited_children(1)
    return psutil.Process(pid)


def await_end(pids: Iterable[int], seconds: float = SECONDS) -> None:
    """Wait until none of these processes exists. One that was not reaped has ended."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        while _is_running(pid):
            assert time.monotonic() < deadline, pid
            time.sleep(0.02)


def await_reaped(pid: int) -> None:
    """Wait until a fork server has reaped a process: it has then closed its own end of the process's socket."""
    deadline = time.monotonic() + SECONDS
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).ppid() != os.getpid():  # children of this process are not reaped by a server
            assert time.monotonic() < deadline, pid
            time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
