"""Worker processes: started on first use, kept warm, killed when they stall, replaced when they die."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

import pyarrow as pa

from trace_dagster.engine.worker import END_OF_CALL, FOLDER_PREFIX, READY, read_frame, write_frame
from trace_dagster.redaction import redact

START_SECONDS = 60.0
"""A process that does not serve calls after this long is given up; importing Cryo takes half a second."""

_STDERR_LINES = 40
_STDERR_SECONDS = 2.0
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
    """The process ended before it answered: not the range's fault."""


class CallFailed(Exception):
    """Cryo failed the call; the text is redacted."""


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
        self._calls: dict[int, tuple[float, Future[pa.Table]]] = {}
        self._urls: set[str] = set()
        self._printed = threading.Condition()
        self._ended: set[int] = set()
        self._stderr: deque[tuple[float, str]] = deque(maxlen=_STDERR_LINES)
        threading.Thread(target=self._read_answers, name="engine-answers", daemon=True).start()
        threading.Thread(target=self._read_stderr, name="engine-stderr", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def load(self) -> int:
        """Calls under way."""
        with self._lock:
            return len(self._calls)

    def await_start(self) -> None:
        """Until the process serves calls, or is given up after START_SECONDS: the next submit tells."""
        if not self._started.wait(START_SECONDS):
            self.kill()

    def submit(self, dataset: str, columns: list[str], order: list[str], arguments: dict[str, Any]) -> Future[pa.Table]:
        """Start a call. The future raises CallFailed or WorkerGone."""
        future: Future[pa.Table] = Future()
        request = {"dataset": dataset, "columns": columns, "order": order, "arguments": arguments}
        with self._lock:
            identity = next(self._ids)
            self._calls[identity] = (time.monotonic(), future)
            self._urls.add(arguments["rpc"])
            try:
                assert self._process.stdin is not None
                write_frame(self._process.stdin, json.dumps({"id": identity, **request}).encode())
                self._process.stdin.flush()
            except (OSError, ValueError):
                self._calls.pop(identity, None)
                future.set_exception(WorkerGone("the engine process is gone"))
        return future

    def kill(self) -> None:
        """End the process at once; its calls raise WorkerGone."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _read_answers(self) -> None:
        source = self._process.stdout
        assert source is not None
        ready = read_frame(source) == READY
        self._started.set()
        while ready and (header := read_frame(source)) is not None and (payload := read_frame(source)) is not None:
            self._settle(json.loads(header), payload)
        self._process.wait()
        with self._lock:
            left, self._calls = list(self._calls.values()), {}
        for _, future in left:
            future.set_exception(WorkerGone("the engine process ended"))

    def _settle(self, header: dict[str, Any], payload: bytes) -> None:
        with self._lock:
            call = self._calls.pop(header["id"], None)
            urls = set(self._urls)
        if call is None:
            return
        started, future = call
        if not header["ok"]:
            self._await_stderr(header["id"])
        if header["ok"]:
            future.set_result(pa.ipc.open_stream(payload).read_all())
        else:
            # what an earlier call printed says nothing about this one
            printed = " ".join(line for at, line in list(self._stderr) if at >= started)
            future.set_exception(CallFailed(redact(f"{header['error']} {printed}", urls)))

    def _read_stderr(self) -> None:
        source = self._process.stderr
        assert source is not None
        for line in source:
            with self._lock:
                urls = set(self._urls)
            text, mark, identity = line.partition(END_OF_CALL)
            if text:
                self._stderr.append((time.monotonic(), redact(text.decode(errors="replace").strip(), urls)))
            if mark:
                with self._printed:
                    self._ended.add(int(identity))
                    self._printed.notify_all()

    def _await_stderr(self, identity: int) -> None:
        """Until what was printed about a failed call has been read: it comes on another pipe than the answer."""
        with self._printed:
            self._printed.wait_for(lambda: identity in self._ended, timeout=_STDERR_SECONDS)
            self._ended.discard(identity)


class Workers:
    """A fixed number of workers, chosen by load; a dead one is replaced when next needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._closed = False

    def get(self) -> Worker:
        """The least loaded worker."""
        with self._lock:
            if self._closed:
                raise WorkerGone("the engine is closed")
            self._workers = [worker for worker in self._workers if worker.alive]
            if len(self._workers) < self._count:
                self._workers.append(Worker())
                return self._workers[-1]
            return min(self._workers, key=lambda worker: worker.load)

    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        with self._lock:
            return [worker.pid for worker in self._workers if worker.alive]

    def close(self) -> None:
        """End every worker."""
        with self._lock:
            self._closed = True
            left, self._workers = self._workers, []
        for worker in left:
            worker.kill()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "RUST_BACKTRACE": "0", "PYTHONUNBUFFERED": "1"}
