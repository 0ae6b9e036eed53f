"""Calls of the engine for one piece at one endpoint, with as many blocks per log query as the endpoint takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import chain_of
from trace_dagster.engine.base import Engine, ExtractRequest
from trace_dagster.errors import ExtractionFailed, NoAnswer, Unavailable
from trace_dagster.extraction.priority_semaphore import PrioritySemaphore
from trace_dagster.extraction.range_state import RangeState
from trace_dagster.rpc.latency import NEAR_CALLS, LogSpans
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.rows.receipt_columns import with_legacy_type, without_early_status

RequestsAtOnce = Callable[[Endpoint], int | None]
"""Returns how many requests Cryo keeps under way at a near endpoint; None for others: Cryo's own default."""


class EngineCalls:
    """Calls the engine. Thread-safe."""

    def __init__(self, engine: Engine, requests_at_once: RequestsAtOnce) -> None:
        self._engine = engine
        self._requests_at_once = requests_at_once
        self._near_calls = PrioritySemaphore(NEAR_CALLS)
        self._log_spans = LogSpans()

    @contextmanager
    def turn(self, piece: BlockRange, endpoint: Endpoint) -> Iterator[int | None]:
        """Wait for a turn at the endpoint; yield how many requests Cryo should keep under way.

        A near endpoint serves NEAR_CALLS pieces at once, those with the lowest blocks first, together with their
        evidence: so the streams of a run stay over the same blocks. A turn ends when the rows have arrived.
        """
        at_once = self._requests_at_once(endpoint)
        with self._near_calls.holding(piece.start) if at_once is not None else nullcontext():
            yield at_once

    def extract(self, state: RangeState, piece: BlockRange, endpoint: Endpoint, at_once: int | None) -> pa.Table:
        """Return the rows of a piece, with the request's engine columns.

        If a query for the logs of many blocks fails, it is repeated with fewer blocks per query.
        """
        request = state.request
        most = request.options.get("inner_request_blocks", 1) if request.dataset.is_queried_by_span else 1
        while True:
            blocks = min(self._log_spans.of(endpoint, most), len(piece))
            state.count_calls(1 + request.dataset.most_calls(len(piece), blocks, request.engine_columns))  # eth_chainId
            try:
                found = self._engine.extract(self._request(state, piece, endpoint, blocks, at_once))
                return with_legacy_type(without_early_status(found, chain_of(request.chain_id).fork("byzantium")))
            except (Unavailable, ExtractionFailed) as error:
                if blocks == 1 or isinstance(error, NoAnswer):
                    raise
                self._log_spans.refused(endpoint, blocks)
            state.require_running(piece)

    @staticmethod
    def _request(
        state: RangeState, piece: BlockRange, endpoint: Endpoint, blocks: int, at_once: int | None
    ) -> ExtractRequest:
        request = state.request
        return ExtractRequest(
            dataset=request.dataset,
            block_range=piece,
            chain_id=request.chain_id,
            schema=request.dataset.engine_schema(request.engine_columns),
            endpoint=endpoint,
            timeout_seconds=state.seconds_left,
            inner_request_blocks=blocks,
            requests_per_second=request.options.get("requests_per_second"),
            max_concurrent_requests=request.options.get("max_concurrent_requests") or at_once,
        )
