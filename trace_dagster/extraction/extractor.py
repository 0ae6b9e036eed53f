"""Extracts a range piece by piece: ahead of its consumer, proven against the chain, in block order.

A piece that fails is tried on every endpoint of its pool, the best first, then in halves (``retry_rules.py``). Rows
that no further try would give (ExtractionFailed) are asked of every endpoint a single time, because a node may have
made up its block; so are blocks that one endpoint cannot prove in full. Endpoints whose rows the chain contradicts are
recorded. Retries end here: an error that comes out ends the attempt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from itertools import cycle, islice
from typing import Any, TypeVar

import pyarrow as pa

from trace_dagster import __version__
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import chain_of
from trace_dagster.engine.base import Engine
from trace_dagster.errors import ExtractionFailed, NoAnswer, TraceError, Unavailable, VerificationFailed
from trace_dagster.evidence.collector import PieceEvidence
from trace_dagster.extraction.blame import Blame, LiarRecorder, PieceBlame
from trace_dagster.extraction.block_times import BlockTimes, TimeSource
from trace_dagster.extraction.endpoint_load import EndpointLoad, EndpointOrder, by_load
from trace_dagster.extraction.engine_calls import EngineCalls, RequestsAtOnce
from trace_dagster.extraction.lake_rows import lake_rows
from trace_dagster.extraction.piece_stream import PieceStream
from trace_dagster.extraction.quorum import agreeing_endpoints
from trace_dagster.extraction.range_state import STOPPED, RangeState
from trace_dagster.extraction.request import Piece, RangeRequest
from trace_dagster.extraction.retry_rules import ANOTHER_ENDPOINT, decisive, is_worth_halving, tries_of
from trace_dagster.extraction.row_source import NATIVE, IsUnreliable, NoteUnreliable, Rows, RowSource
from trace_dagster.extraction.sizing import PieceSizes
from trace_dagster.messages.logs import component_log
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.check import PIECE_BLOCKS, Proof, check
from trace_dagster.verify.model import Evidence

_THREADS = 64
_Found = TypeVar("_Found")
_log = component_log("extraction")


class Extractor:
    """Extracts and proves the ranges of one process. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        best_first: EndpointOrder = by_load,
        record_liar: LiarRecorder = lambda endpoint, reason: None,
        *,
        note_unreliable: NoteUnreliable = lambda endpoint, method, reason: None,
        is_unreliable: IsUnreliable = lambda endpoint, method: False,
        requests_at_once: RequestsAtOnce = lambda endpoint: None,
        piece_blocks: int = PIECE_BLOCKS,
    ) -> None:
        self._engine = engine
        self._best_first = best_first
        self._blame = Blame(record_liar)
        self.load = EndpointLoad()
        """Pieces under way at each endpoint."""
        self._calls = EngineCalls(engine, requests_at_once)
        self._rows = RowSource(self._calls, note_unreliable, is_unreliable)
        self._times = TimeSource(engine)
        self._sizes = PieceSizes(piece_blocks)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pieces")
        self._evidence_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="evidence")

    def engine_of(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Return name and version of the engine that a stream with these options asks for."""
        if options.get("engine") == NATIVE:
            return {"name": NATIVE, "version": __version__}
        return {"name": self._engine.name, "version": self._engine.version}

    def start(self, request: RangeRequest, stopped: threading.Event | None = None) -> PieceStream:
        """Start to extract a range: its first pieces are under way when this returns.

        No further call is made after ``stopped`` is set or the stream is closed.
        """
        state = RangeState(request, stopped)
        return PieceStream(state, self._sizes, lambda piece: self._threads.submit(self._proven, state, piece))

    def close(self) -> None:
        """Stop starting pieces. A call that is already running ends when the engine is closed."""
        for threads in (self._threads, self._evidence_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _proven(self, state: RangeState, piece: BlockRange, blame: PieceBlame | None = None) -> list[Piece]:
        """Return a piece proven, in more than one part if it had to be halved. Raises the error that decides."""
        request = state.request
        blame = blame or self._blame.of(chain_of(request.chain_id), request.dataset.name, piece)
        endpoints = self._best_first(request.pool, self.load.of)
        evidence = request.evidence.of(piece) if request.evidence is not None else None
        failed: dict[str, TraceError] = {}
        error: TraceError | None = None
        lowered: Piece | None = None
        for number, endpoint in enumerate(islice(cycle(endpoints), tries_of(len(piece), len(endpoints)))):
            state.require_running(piece, error)
            try:
                with self.load.one_more(endpoint):
                    found = self._try(state, piece, endpoint.again(number), endpoints, evidence, blame)
            except (*ANOTHER_ENDPOINT, ExtractionFailed) as caught:
                if not isinstance(caught, ANOTHER_ENDPOINT) and number + 1 >= len(endpoints):
                    raise
                noted = blame.failed(endpoint, caught)
                log = _log.warning if len(endpoints) > 1 else _log.debug
                log("endpoint_passed_over", **request.facts, block_range=piece, endpoint=endpoint.name, reason=noted)
                self._forget(state, piece, endpoint, evidence)
                failed[endpoint.name] = noted
                error = decisive(error, noted)
            else:
                if not request.may_be_proven_elsewhere(found):
                    blame.passed(is_lowered=found.is_lowered)
                    return [found]
                lowered = lowered or found
            if lowered is not None and number + 1 >= len(endpoints):
                blame.passed(is_lowered=True)
                return [lowered]
        assert error is not None
        if request.may_leave_open(failed.values()):
            return self._proven(state, piece, blame)
        if len(piece) == 1 or not is_worth_halving(error):
            raise error if evidence is None else blame.verdict(error, endpoints)  # only a proof depends on forms
        middle = piece.start + len(piece) // 2
        first, second = BlockRange(piece.start, middle), BlockRange(middle, piece.end)
        return [
            *self._proven(state, first, blame.half(first)),
            *self._proven(state, second, blame.half(second)),
        ]

    def _try(
        self,
        state: RangeState,
        piece: BlockRange,
        endpoint: Endpoint,
        endpoints: list[Endpoint],
        evidence: PieceEvidence | None,
        blame: PieceBlame,
    ) -> Piece:
        """Extract a piece at one endpoint, while its evidence is gathered there, and compare the two."""
        request = state.request
        gathered: Future[Evidence] | None = None
        fetched: Future[list[int]] | None = None
        with self._calls.turn(piece, endpoint) as at_once:
            state.require_running(piece)
            if evidence is not None:
                gathered = self._start(piece, evidence.gather, endpoint)
            elif self._times.are_fetched(request, piece):
                fetched = self._start(piece, self._times.fetch, state, piece, endpoint)
            rows = self._rows.extract(state, piece, endpoint, at_once, evidence, gathered)
        started = time.monotonic()
        proof: Proof | None = None
        found: Evidence | None = None
        if evidence is not None and gathered is not None:
            rows, proof, found = self._compare(state, piece, rows, endpoint, evidence, gathered)
        elif request.verify != "off":
            proof = check(request.dataset, rows.table, piece, request.chain_id, None)
        times = self._times.of(state, piece, endpoint, rows.table, found, fetched)
        table = _stored(state, piece, rows, proof, times)
        seconds = time.monotonic() - started
        extract = partial(self._extract_again, state, piece, evidence, times if times.is_proven else None)
        agreeing = agreeing_endpoints(table, piece, endpoint, endpoints, request.pool.quorum, extract, blame.failed)
        source = found.source if found is not None else {}
        names = (endpoint.name, *agreeing)
        return Piece(piece, table, proof, source, names, seconds, rows.source, has_proven_times=times.is_proven)

    def _extract_again(
        self,
        state: RangeState,
        piece: BlockRange,
        evidence: PieceEvidence | None,
        proven: BlockTimes | None,
        endpoint: Endpoint,
    ) -> pa.Table:
        """Return another endpoint's rows of a piece, with the columns that are kept and, unless they are ``proven``,
        its own block times.
        """
        with self._calls.turn(piece, endpoint) as at_once:
            found = self._rows.extract(state, piece, endpoint, at_once, evidence)
        times = proven or self._times.of(state, piece, endpoint, found.table, None)
        return _stored(state, piece, found, None, times)

    def _forget(self, state: RangeState, piece: BlockRange, endpoint: Endpoint, evidence: PieceEvidence | None) -> None:
        """Drop what was kept of an endpoint's answers, because the piece failed there."""
        self._times.forget(state, piece, endpoint)
        if evidence is not None:
            evidence.forget(endpoint)

    def _compare(
        self,
        state: RangeState,
        piece: BlockRange,
        rows: Rows,
        endpoint: Endpoint,
        evidence: PieceEvidence,
        gathered: Future[Evidence],
    ) -> tuple[Rows, Proof, Evidence]:
        """Return the rows with every extracted column, their proof, and the evidence.

        Logs that proven receipts contradict are replaced by those of the receipts.
        """
        if rows.evidence is not None:
            table, proof = state.request.prove(rows.table, piece, rows.evidence)
            return rows._replace(table=table), proof, rows.evidence
        try:
            table, proof, found = _compare(state, piece, rows.table, endpoint, evidence, gathered)
            return rows._replace(table=table), proof, found
        except VerificationFailed as contradiction:
            rows = self._rows.replaced(state, piece, endpoint, evidence, contradiction)
            return self._compare(state, piece, rows, endpoint, evidence, gathered)

    def _start(self, piece: BlockRange, work: Callable[..., _Found], *given: object) -> Future[_Found]:
        """Start to fetch evidence or block times, while the rows are extracted."""
        try:
            return self._evidence_threads.submit(work, *given)
        except RuntimeError:  # the pool of threads is shut down
            raise Unavailable(STOPPED, range=piece) from None


def _stored(state: RangeState, piece: BlockRange, rows: Rows, proof: Proof | None, times: BlockTimes) -> pa.Table:
    """Return the rows of a piece as they are stored."""
    request = state.request
    return lake_rows(request.dataset, rows.table, request.columns, piece, proof, times.microseconds)


def _compare(
    state: RangeState,
    piece: BlockRange,
    table: pa.Table,
    endpoint: Endpoint,
    evidence: PieceEvidence,
    gathered: Future[Evidence],
) -> tuple[pa.Table, Proof, Evidence]:
    """Return the rows with every extracted column, their proof, and the evidence.

    If committed rows are part of the evidence and contradict the rows, the node is asked for all of the evidence.
    Raises ForkConflict if that proves the rows: they and the committed rows lie on different forks.
    """
    request = state.request
    try:
        found = gathered.result(timeout=state.seconds_left)
        return *request.prove(table, piece, found), found
    except FutureTimeout:
        raise NoAnswer(f"rpc endpoint {endpoint.name} timed out while fetching evidence", range=piece) from None
    except VerificationFailed:
        if evidence.known().is_empty:
            raise
    fresh = evidence.gather_from_node(endpoint)
    whole, proof = request.prove(table, piece, fresh)
    evidence.require_one_chain(fresh)
    return whole, proof, fresh
