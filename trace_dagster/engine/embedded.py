"""Cryo from its wheel, in worker processes (ADR 0005)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from importlib.metadata import version

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.columns import cryo_column, row_order
from trace_dagster.engine.failures import EndpointLacks, failure
from trace_dagster.engine.workers import CallFailed, Worker, WorkerGone, Workers
from trace_dagster.errors import ExtractionFailed, TraceError, Unavailable

WORKERS = 2
LOOK_AHEAD = 2
"""Sub-ranges of one range under way at once; this many tables are the most a range holds in memory."""

SUBRANGE_RETRIES = 2
"""Failed sub-ranges are tried again alone, on the pool's next endpoint."""

STALL_SECONDS = 120.0
"""A sub-range without an answer for this long: its worker is killed, Cryo has no timeout of its own."""

WORKER_RETRIES = 5
"""Times a sub-range moves to another worker because its own died under it."""


@dataclass(slots=True)
class _Piece:
    block_range: BlockRange
    worker: Worker
    future: Future[pa.Table]
    started: float
    failures: int = 0
    moves: int = 0


class EmbeddedCryo:
    """The real engine. Thread-safe; workers are shared by all ranges of the process."""

    name = "cryo"

    def __init__(self, workers: int = WORKERS, stall_seconds: float = STALL_SECONDS) -> None:
        self.version = version("cryo")
        self._workers = Workers(workers)
        self._stall_seconds = stall_seconds

    def extract(self, request: ExtractRequest) -> Iterator[pa.Table]:
        """One table per sub-range, in order; see :class:`~trace_dagster.engine.base.Engine`."""
        deadline = time.monotonic() + request.timeout_seconds
        ahead: deque[_Piece] = deque()
        todo = request.block_range.split(request.subrange_blocks)
        while True:
            while len(ahead) < LOOK_AHEAD and (block_range := next(todo, None)) is not None:
                ahead.append(self._start(request, block_range, 0))
            if not ahead:
                return
            yield _checked(self._finish(request, ahead.popleft(), deadline), request)

    def pids(self) -> list[int]:
        """Worker process ids."""
        return self._workers.pids()

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def _start(self, request: ExtractRequest, block_range: BlockRange, endpoint: int) -> _Piece:
        order = [key for key in row_order(request.dataset) if key in request.schema.names]
        try:
            worker = self._workers.get()
        except WorkerGone as error:
            raise Unavailable("extraction was stopped", range=request.block_range) from error
        arguments = _arguments(request, block_range, request.pool.urls[endpoint % len(request.pool.urls)])
        future = worker.submit(request.dataset, request.schema.names, order, arguments)
        return _Piece(block_range, worker, future, time.monotonic())

    def _finish(self, request: ExtractRequest, piece: _Piece, deadline: float) -> pa.Table:
        """Wait for a piece, trying it again as its failures allow."""
        while True:
            try:
                wait = min(self._stall_seconds - (time.monotonic() - piece.started), deadline - time.monotonic())
                return piece.future.result(timeout=max(0.0, wait))
            except FutureTimeout:
                piece.worker.kill()
                error: TraceError = Unavailable(
                    f"rpc pool {request.pool.name} stalled: no answer in time", range=piece.block_range
                )
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        f"the range took longer than timeout_seconds={request.timeout_seconds:.0f}",
                        range=request.block_range,
                    ) from None
            except WorkerGone:
                piece = self._moved(request, piece)
                continue
            except CallFailed as failed:
                error = failure(str(failed), request, piece.block_range)
            piece = self._again(request, piece, error)

    def _moved(self, request: ExtractRequest, piece: _Piece) -> _Piece:
        if piece.moves >= WORKER_RETRIES:
            raise Unavailable("engine processes keep dying on this range", range=piece.block_range)
        moved = self._start(request, piece.block_range, piece.failures)
        moved.failures, moved.moves = piece.failures, piece.moves + 1
        return moved

    def _again(self, request: ExtractRequest, piece: _Piece, error: TraceError) -> _Piece:
        if not isinstance(error, Unavailable | EndpointLacks) or piece.failures >= SUBRANGE_RETRIES:
            raise error
        again = self._start(request, piece.block_range, piece.failures + 1)
        again.failures, again.moves = piece.failures + 1, piece.moves
        return again


def _arguments(request: ExtractRequest, block_range: BlockRange, url: str) -> dict[str, object]:
    known = dataset(request.dataset)
    extra = [name for name in request.schema.names if name not in known.default_columns]
    arguments: dict[str, object] = {
        "start_block": block_range.start,
        "end_block": block_range.end,
        "rpc": url,
        "verbose": False,
        "no_report": True,
        "max_retries": 1,
        "initial_backoff": 200,
        "inner_request_size": request.inner_request_blocks,
    }
    if extra:
        arguments["include_columns"] = sorted({cryo_column(name) for name in extra})
    if request.requests_per_second:
        arguments["requests_per_second"] = request.requests_per_second
    if request.max_concurrent_requests:
        arguments["max_concurrent_requests"] = request.max_concurrent_requests
    return arguments


def _checked(table: pa.Table, request: ExtractRequest) -> pa.Table:
    if not table.schema.equals(request.schema):
        raise ExtractionFailed("the engine's columns are not those this version knows", dataset=request.dataset)
    return table.replace_schema_metadata(None)
