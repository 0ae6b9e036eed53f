"""Runs Cryo from its wheel in worker processes (ADR 0005)."""

from __future__ import annotations

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from importlib.metadata import version

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.columns import cryo_column, excluded_columns, row_order, u256_forms
from trace_dagster.engine.failures import failure
from trace_dagster.engine.workers import STALLED, CallFailed, Worker, WorkerGone, Workers
from trace_dagster.errors import NoAnswer, Unavailable, UnknownFormat
from trace_dagster.messages.logs import component_log

_log = component_log("engine")

WORKERS = 1
"""One process of Cryo uses every core. A second one makes extraction a tenth slower (measured)."""
STALL_SECONDS = 120.0
"""If a call has no answer after this time, its worker is killed. Cryo has no timeout of its own."""

WORKER_RETRIES = 5
"""How many workers a call is sent to if each of them dies during the call."""


class EmbeddedCryo:
    """The real engine. Thread-safe; all calls of the process share the workers."""

    name = "cryo"

    def __init__(self, workers: int = WORKERS, stall_seconds: float = STALL_SECONDS) -> None:
        self.version = version("cryo")
        self._workers = Workers(workers)
        self._stall_seconds = stall_seconds

    def extract(self, request: ExtractRequest) -> pa.Table:
        """Run one call; see :class:`~trace_dagster.engine.base.Engine` for errors.

        If its worker dies, another worker runs the call again.
        """
        deaths, deadline = 0, time.monotonic() + request.timeout_seconds
        while deaths < WORKER_RETRIES and time.monotonic() < deadline:
            worker, future = self._start(request)
            seconds = request.wait_seconds(self._stall_seconds)
            try:
                return _checked(future.result(timeout=seconds), request)
            except FutureTimeout:
                name = request.endpoint.name
                _log.warning(
                    "worker_killed",
                    pid=worker.pid,
                    reason=STALLED,
                    endpoint=name,
                    block_range=request.block_range,
                    seconds=seconds,
                )
                worker.kill(STALLED)
                raise NoAnswer(f"rpc endpoint {name} stalled: no answer in time", range=request.block_range) from None
            except WorkerGone as gone:
                deaths += not gone.by_another_call
            except CallFailed as failed:
                raise failure(str(failed), request) from None
        if deaths < WORKER_RETRIES:
            raise Unavailable("engine processes were ended because other calls stalled", range=request.block_range)
        raise Unavailable(
            "engine processes keep dying on this range: give the machine more memory",
            range=request.block_range,
        )

    def pids(self) -> list[int]:
        """Return the process ids of the running workers."""
        return self._workers.pids()

    def made_up_times(self, piece: BlockRange) -> None:
        """Return None: the node that the rows come from has the headers."""

    def close(self) -> None:
        """End all workers."""
        self._workers.close()

    def _start(self, request: ExtractRequest) -> tuple[Worker, Future[pa.Table]]:
        order = [key for key in row_order(request.dataset) if key in request.schema.names]
        try:
            worker = self._workers.get()
            worker.await_start()
        except WorkerGone as error:
            raise Unavailable("extraction was stopped", range=request.block_range) from error
        return worker, worker.submit(request.dataset.name, request.schema.names, order, _arguments(request))


def _arguments(request: ExtractRequest) -> dict[str, object]:
    extra = [name for name in request.schema.names if name not in request.dataset.default_columns]
    arguments: dict[str, object] = {
        "start_block": request.block_range.start,
        "end_block": request.block_range.end,
        "rpc": request.endpoint.address,
        "verbose": False,
        "no_report": True,
        "max_retries": 1,
        "initial_backoff": 200,
        "inner_request_size": request.inner_request_blocks,
    }
    if extra:
        arguments["include_columns"] = sorted({cryo_column(name) for name in extra})
    if unwanted := excluded_columns(request.dataset, request.schema.names):
        arguments["exclude_columns"] = unwanted
    if forms := u256_forms(request.dataset, request.schema.names):
        arguments["u256_types"] = forms
    if request.requests_per_second:
        arguments["requests_per_second"] = request.requests_per_second
    if request.max_concurrent_requests:
        arguments["max_concurrent_requests"] = request.max_concurrent_requests
    return arguments


def _checked(table: pa.Table, request: ExtractRequest) -> pa.Table:
    if not table.schema.equals(request.schema):
        raise UnknownFormat("the engine's columns are not those this version knows", dataset=request.dataset.name)
    return table.replace_schema_metadata(None)
