"""Starts worker processes on first use, sends them calls, and replaces those that died."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from typing import Any

import pyarrow as pa

from trace_dagster.engine.call_output import CallOutput
from trace_dagster.engine.worker import FOLDER_PREFIX, READY, read_frame, write_frame
from trace_dagster.messages.logs import component_log
from trace_dagster.messages.redaction import redact

_log = component_log("engine")

START_SECONDS = 60.0
"""A process that does not serve calls after this time is killed. Importing Cryo takes half a second."""

_STDERR_SECONDS = 2.0
"""Time until the report of a failed call has been read. It comes on another pipe than the answer."""

STALLED = "stalled"
"""Reason of the end of a process one of whose calls had no answer in time."""

_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PYTHONPATH",
    "TRACE_STACK_ID",
)


class WorkerGone(Exception):
    """The process ended before it answered. Another worker may succeed with the same call."""

    def __init__(self, message: str, *, by_another_call: bool = False) -> None:
        super().__init__(message)
        self.by_another_call = by_another_call
        """Whether it was ended because another call stalled, so that this call is not the cause."""


class CallFailed(Exception):
    """Cryo failed the call. The text is the call's own, and redacted."""


class Worker:
    """One engine process and the calls it has not answered yet."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trace_dagster.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder.name,
            env=_environment(),
            start_new_session=True,
        )
        self._started = threading.Event()
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._calls: dict[int, Future[pa.Table]] = {}
        self._output = CallOutput()
        self._kill_reason: str | None = None
        _log.event("worker_started", pid=self.pid)
        threading.Thread(target=self._read_answers, name="engine-answers", daemon=True).start()
        threading.Thread(target=self._read_stderr, name="engine-stderr", daemon=True).start()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    @property
    def load(self) -> int:
        """Return the number of calls under way."""
        with self._lock:
            return len(self._calls)

    def await_start(self) -> None:
        """Wait until the process serves calls. Kill it after START_SECONDS; the next submit then fails."""
        if not self._started.wait(START_SECONDS):
            self.kill("not_started")

    def submit(self, dataset: str, columns: list[str], order: list[str], arguments: dict[str, Any]) -> Future[pa.Table]:
        """Start a call and return the future of its table, whose columns are ``columns``, sorted by ``order``.

        ``arguments`` are those of ``cryo.async_collect``. The future raises CallFailed or WorkerGone.
        """
        future: Future[pa.Table] = Future()
        request = {"dataset": dataset, "columns": columns, "order": order, "arguments": arguments}
        with self._lock:
            identity = next(self._ids)
            self._calls[identity] = future
            try:
                assert self._process.stdin is not None
                write_frame(self._process.stdin, json.dumps({"id": identity, **request}).encode())
                self._process.stdin.flush()
            except (OSError, ValueError):
                self._calls.pop(identity, None)
                is_stalled = self._kill_reason == STALLED
                future.set_exception(WorkerGone("the engine process is gone", by_another_call=is_stalled))
        return future

    def kill(self, reason: str = "killed") -> None:
        """End the process at once; its calls raise WorkerGone. ``reason`` goes to the log."""
        self._kill_reason = self._kill_reason or reason  # without the lock: a blocked submit holds it
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _read_answers(self) -> None:
        source = self._process.stdout
        assert source is not None
        ready = read_frame(source) == READY
        self._started.set()
        while ready and (header := read_frame(source)) is not None and (payload := read_frame(source)) is not None:
            self._finish_call(json.loads(header), payload)
        self._process.wait()
        with self._lock:
            left, self._calls = list(self._calls.values()), {}
            reason = self._kill_reason
        write = _log.event if reason else _log.warning
        write("worker_ended", pid=self.pid, reason=reason or _exit_reason(self._process.returncode), calls=len(left))
        for future in left:
            future.set_exception(WorkerGone("the engine process ended", by_another_call=reason == STALLED))

    def _finish_call(self, header: dict[str, Any], payload: bytes) -> None:
        with self._lock:
            future = self._calls.pop(header["id"], None)
        if future is None:
            return
        if header["ok"]:
            future.set_result(pa.ipc.open_stream(payload).read_all())
        else:
            report = self._output.report_of(header["id"], _STDERR_SECONDS)
            future.set_exception(CallFailed(redact(f"{header['error']} {report}".strip())))

    def _read_stderr(self) -> None:
        source = self._process.stderr
        assert source is not None
        for line in source:
            self._output.feed(line)


class Workers:
    """A fixed number of workers. Calls go to the least loaded one; a dead one is replaced at the next call."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._closed = False

    def get(self) -> Worker:
        """Return a worker: a new one while there are fewer than the fixed number, else the least loaded.

        Raises WorkerGone after :meth:`close`.
        """
        with self._lock:
            if self._closed:
                raise WorkerGone("the engine is closed")
            self._workers = [worker for worker in self._workers if worker.alive]
            if len(self._workers) < self._count:
                self._workers.append(Worker())
                return self._workers[-1]
            return min(self._workers, key=lambda worker: worker.load)

    def pids(self) -> list[int]:
        """Return the process ids of the workers that run."""
        with self._lock:
            return [worker.pid for worker in self._workers if worker.alive]

    def close(self) -> None:
        """End all workers. Later calls of :meth:`get` raise WorkerGone."""
        with self._lock:
            self._closed = True
            left, self._workers = self._workers, []
        for worker in left:
            worker.kill("closed")


def _exit_reason(code: int) -> str:
    return f"signal_{-code}" if code < 0 else f"exit_{code}"


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "RUST_BACKTRACE": "0", "PYTHONUNBUFFERED": "1"}
