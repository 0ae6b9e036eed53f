"""One range, piece by piece: extracted ahead, proven against the chain, in block order.

A piece that fails is tried on every endpoint of its pool, the best first, then in halves. Endpoints whose
rows the chain contradicts are put on record. Retries end here: what comes out as an error ends the attempt.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.digest import ContentDigest
from trace_dagster.engine.base import Engine, ExtractRequest
from trace_dagster.errors import (
    EndpointLacks,
    ExtractionFailed,
    ForkConflict,
    InvalidInput,
    NoAnswer,
    NoQuorum,
    TraceError,
    Unavailable,
    UnknownFormat,
    VerificationFailed,
)
from trace_dagster.evidence.collector import Witness
from trace_dagster.extraction.priority_semaphore import Turnstile
from trace_dagster.rpc.latency import NEAR_CALLS, LogSpans
from trace_dagster.rpc.pools import Endpoint, RpcPool
from trace_dagster.verify.check import PIECE_BLOCKS, Proof, check, extracted
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.receipt_columns import are_told, asked, filled

LOOK_AHEAD = 2
"""Pieces of one range under way at once; this many tables are the most a range holds in memory."""

PIECE_BYTES = 32 * 1024 * 1024
"""Of a piece's table: memory must not grow with what a block holds."""

FIRST_BLOCKS = 100
"""Blocks of a piece while nothing is known of the stream."""

TRIES = 2
"""Calls for a piece before it is halved, and at least one per endpoint."""

TRIES_ALONE = 6
"""Calls for a single block: it cannot be halved any further."""

SILENT_SECONDS = 30.0
"""How long an endpoint that did not answer is asked last."""

_SILENT_PLACE = 1_000_000
_THREADS = 64
_PASSED_OVER = (VerificationFailed, Unavailable, EndpointLacks, InvalidInput, UnknownFormat, ForkConflict)
"""What another endpoint may do better."""

BestFirst = Callable[[RpcPool, Callable[[Endpoint], int]], list[Endpoint]]
"""The endpoints of a pool; the function orders those that are equally good."""
Lied = Callable[[Endpoint, str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to extract and prove. ``stored`` columns are kept, others are extracted for the proof alone."""

    dataset: Dataset
    block_range: BlockRange
    chain_id: int
    stored: tuple[str, ...]
    verify: str
    pool: RpcPool
    witness: Witness | None
    """None where rows are not measured against the chain."""
    options: dict[str, Any] = field(default_factory=dict)
    """Engine options of the stream: rates, and ``timeout_seconds`` for the whole range."""

    @property
    def extracted(self) -> tuple[str, ...]:
        """Every column of a piece, in schema order: those that are kept, and those the proof reads."""
        return extracted(self.dataset, self.stored, self.verify)

    @property
    def asked(self) -> tuple[str, ...]:
        """Those the engine is asked for: proven receipts tell the others."""
        proven = self.witness is not None
        told = are_told(self.chain_id, self.block_range, proven=proven, quorum=self.pool.quorum)
        return asked(self.dataset, self.stored, self.verify, told=told)

    def measured(self, table: pa.Table, piece: BlockRange, evidence: Evidence) -> tuple[pa.Table, Proof]:
        """What the engine gave with every column, and what that proves. Raises VerificationFailed."""
        whole = filled(table, evidence, self.dataset.schema(self.extracted))
        return whole, check(self.dataset, whole, piece, self.chain_id, evidence)


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of some blocks with the stored columns, and what was proven of them."""

    block_range: BlockRange
    table: pa.Table
    proof: Proof | None
    source: dict[str, str]
    """Where each part of the evidence came from."""
    endpoints: tuple[str, ...]
    """Who gave the rows; more than one under a quorum."""
    evidence_seconds: float
    """Waiting for evidence after the rows had come, and comparing."""


class Pieces:
    """Extracts and proves; safe to use from many threads."""

    def __init__(
        self,
        engine: Engine,
        best_first: BestFirst = lambda pool, among: sorted(pool.endpoints, key=among),
        lied: Lied = lambda endpoint, reason: None,
        *,
        requests_at_once: Callable[[Endpoint], int | None] = lambda endpoint: None,
        piece_blocks: int = PIECE_BLOCKS,
    ) -> None:
        self._engine = engine
        self._best_first = best_first
        self._turns = _Turns()
        self._lied = lied
        self._requests_at_once = requests_at_once
        self._near_calls = Turnstile(NEAR_CALLS)
        self._sizes = _Sizes(piece_blocks)
        self._spans = LogSpans()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pieces")
        self._gathering = ThreadPoolExecutor(_THREADS, thread_name_prefix="evidence")

    @property
    def engine(self) -> dict[str, str]:
        """What extracts: its name and version."""
        return {"name": self._engine.name, "version": self._engine.version}

    def of(self, order: Order, stopped: threading.Event | None = None) -> Iterator[Piece]:
        """Every piece of the range, in order; at most LOOK_AHEAD are under way. Raises what its last try raised.

        Once ``stopped`` is set no further call is begun.
        """
        deadline = time.monotonic() + float(order.options.get("timeout_seconds", 3600))
        ended = threading.Event()
        todo = self._sizes.cut(order)
        ahead: deque[Future[list[Piece]]] = deque()

        def begin() -> None:
            if (block_range := next(todo, None)) is not None:
                job = _Job(order, deadline, ended, stopped)
                ahead.append(self._threads.submit(self._proven, job, block_range))

        try:
            for _ in range(LOOK_AHEAD):
                begin()
            while ahead:
                pieces = ahead.popleft().result()
                self._sizes.note(order, pieces)
                begin()
                yield from pieces
        finally:
            ended.set()
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """Begin nothing more; calls under way end with their engine."""
        for threads in (self._threads, self._gathering):
            threads.shutdown(wait=False, cancel_futures=True)

    def _proven(self, job: _Job, block_range: BlockRange) -> list[Piece]:
        endpoints = self._best_first(job.order.pool, self._turns.place)
        tries = TRIES_ALONE if len(block_range) == 1 else TRIES
        error: TraceError | None = None
        for attempt, endpoint in enumerate(islice(cycle(endpoints), max(tries, len(endpoints)))):
            job.require_going(block_range, error)
            try:
                with self._turns.taking(endpoint):
                    return [self._once(job, block_range, endpoint.again(attempt), endpoints)]
            except _PASSED_OVER as failed:
                noted = self._noted(failed, endpoint)
                if job.order.witness is not None:
                    job.order.witness.forget(block_range, endpoint)
                error = noted if error is None or _weight(noted) <= _weight(error) else error
        assert error is not None
        if len(block_range) == 1 or not _worth_halving(error):
            raise error
        middle = block_range.start + len(block_range) // 2
        first, second = BlockRange(block_range.start, middle), BlockRange(middle, block_range.end)
        return [*self._proven(job, first), *self._proven(job, second)]

    def _once(self, job: _Job, block_range: BlockRange, endpoint: Endpoint, endpoints: list[Endpoint]) -> Piece:
        order = job.order
        gathered: Future[Evidence] | None = None
        with self._turn(block_range, endpoint) as at_once:
            job.require_going(block_range, None)
            if order.witness is not None:
                gathered = self._gathered(order.witness, block_range, endpoint)
            table = self._extract(job, block_range, endpoint, at_once)
        started = time.monotonic()
        proof: Proof | None = None
        source: dict[str, str] = {}
        if order.witness is not None and gathered is not None:
            table, proof, source = _measured(order, order.witness, table, block_range, endpoint, gathered, job.deadline)
        elif order.verify != "off":
            proof = check(order.dataset, table, block_range, order.chain_id, None)
        table = table.select(list(order.stored))
        seconds = time.monotonic() - started
        agreeing = self._quorum(job, block_range, table, endpoint, endpoints)
        return Piece(block_range, table, proof, source, (endpoint.name, *agreeing), seconds)

    def _quorum(
        self, job: _Job, block_range: BlockRange, table: pa.Table, first: Endpoint, endpoints: list[Endpoint]
    ) -> list[str]:
        """Names of other endpoints that give the same rows, as many as the pool asks for.

        Raises NoQuorum where others give other rows, Unavailable where too few give any.
        """
        wanted = job.order.pool.quorum - 1
        if not wanted:
            return []
        mine = _digest(table)
        agreeing: list[str] = []
        disagreeing: list[str] = []
        contradicted = False
        for endpoint in endpoints:
            if len(agreeing) >= wanted:
                break
            if endpoint.name == first.name:
                continue
            try:
                with self._turn(block_range, endpoint) as at_once:
                    other = self._extract(job, block_range, endpoint, at_once).select(list(job.order.stored))
            except _PASSED_OVER as failed:
                disagreeing.append(str(self._noted(failed, endpoint)))
                continue
            if _digest(other) == mine:
                agreeing.append(endpoint.name)
            else:
                contradicted = True
                disagreeing.append(f"{endpoint.name} gives other rows, first at {_first_difference(table, other)}")
        if len(agreeing) < wanted:
            error = NoQuorum if contradicted else Unavailable
            raise error(
                f"no quorum of {job.order.pool.quorum} for what rpc endpoint {first.name} gives:"
                f" {'; '.join(disagreeing)}",
                range=block_range,
            )
        return agreeing

    def _gathered(self, witness: Witness, block_range: BlockRange, endpoint: Endpoint) -> Future[Evidence]:
        try:
            return self._gathering.submit(witness.gather, block_range, endpoint)
        except RuntimeError:  # closed
            raise Unavailable("extraction was stopped", range=block_range) from None

    @contextmanager
    def _turn(self, block_range: BlockRange, endpoint: Endpoint) -> Iterator[int | None]:
        """Inside the block the endpoint is asked; gives how many requests Cryo should keep under way.

        A near one is asked for the lowest blocks first, and for their evidence with them: so streams stay together. A
        turn is over when the rows are there, with however many calls.
        """
        at_once = self._requests_at_once(endpoint)
        with self._near_calls.passing(block_range.start) if at_once is not None else nullcontext():
            yield at_once

    def _extract(self, job: _Job, block_range: BlockRange, endpoint: Endpoint, at_once: int | None) -> pa.Table:
        """One call of the engine; where logs of many blocks were asked for at once and it failed, with fewer."""
        most = job.order.options.get("inner_request_blocks", 1) if job.order.dataset.is_queried_by_span else 1
        while True:
            blocks = min(self._spans.of(endpoint, most), len(block_range))
            request = self._request(job, block_range, endpoint, blocks, at_once)
            try:
                return self._engine.extract(request)
            except (Unavailable, ExtractionFailed) as error:
                if blocks == 1 or isinstance(error, NoAnswer):
                    raise
                self._spans.refused(endpoint, blocks)
            job.require_going(block_range, None)

    @staticmethod
    def _request(
        job: _Job, block_range: BlockRange, endpoint: Endpoint, blocks: int, at_once: int | None
    ) -> ExtractRequest:
        order = job.order
        return ExtractRequest(
            dataset=order.dataset.name,
            block_range=block_range,
            chain_id=order.chain_id,
            schema=order.dataset.schema(order.asked),
            endpoint=endpoint,
            timeout_seconds=max(1.0, job.deadline - time.monotonic()),
            inner_request_blocks=blocks,
            requests_per_second=order.options.get("requests_per_second"),
            max_concurrent_requests=order.options.get("max_concurrent_requests") or at_once,
        )

    def _noted(self, error: TraceError, endpoint: Endpoint) -> TraceError:
        """The error with the endpoint's name in it; a lie goes on record, a disagreement does not: who lied?"""
        if isinstance(error, VerificationFailed) and not isinstance(error, NoQuorum):
            named = VerificationFailed(error.message, **{**error.facts, "endpoint": endpoint.name})
            self._lied(endpoint, str(named))
            return named
        return error


def _measured(
    order: Order,
    witness: Witness,
    table: pa.Table,
    block_range: BlockRange,
    endpoint: Endpoint,
    gathered: Future[Evidence],
    deadline: float,
) -> tuple[pa.Table, Proof, dict[str, str]]:
    """Compare rows with the evidence; where committed rows gave part of it and contradict, ask the node for all of it.

    Raises ForkConflict when the node then proves its rows: they and the committed ones are of different forks.
    """
    try:
        evidence = gathered.result(timeout=max(1.0, deadline - time.monotonic()))
        return *order.measured(table, block_range, evidence), evidence.source
    except FutureTimeout:
        raise NoAnswer(
            f"rpc endpoint {endpoint.name} does not come to an end with its evidence", range=block_range
        ) from None
    except VerificationFailed:
        if not witness.knows(block_range):
            raise
    fresh = witness.gather(block_range, endpoint, fresh=True)
    whole, proof = order.measured(table, block_range, fresh)
    witness.require_one_chain(block_range, fresh)
    return whole, proof, fresh.source


class _Turns:
    """Whose turn it is among the endpoints of a pool: who has least to do, so that their budgets add up.

    One that did not answer comes last for a while. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self._silent_until: dict[str, float] = {}

    def place(self, endpoint: Endpoint) -> int:
        """Lowest first."""
        with self._lock:
            silent = time.monotonic() < self._silent_until.get(endpoint.url, 0.0)
            return self._busy[endpoint.url] + (_SILENT_PLACE if silent else 0)

    @contextmanager
    def taking(self, endpoint: Endpoint) -> Iterator[None]:
        """Inside the block the endpoint works on one piece more."""
        with self._lock:
            self._busy[endpoint.url] += 1
        try:
            yield
        except NoAnswer:
            with self._lock:
                self._silent_until[endpoint.url] = time.monotonic() + SILENT_SECONDS
            raise
        finally:
            with self._lock:
                self._busy[endpoint.url] -= 1


class _Sizes:
    """How many blocks a piece has: as many as fit into PIECE_BYTES, by what the stream's last pieces held."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes_per_block: dict[tuple[int, str], float] = {}

    def cut(self, order: Order) -> Iterator[BlockRange]:
        """The pieces of a range; each is as large as is known to be right when it is begun."""
        start = order.block_range.start
        while start < order.block_range.end:
            end = min(start + self._blocks(order), order.block_range.end)
            yield BlockRange(start, end)
            start = end

    def note(self, order: Order, pieces: list[Piece]) -> None:
        """Learn from pieces that came. Chains get busier, so the densest of the last ones counts."""
        dense = max(piece.table.nbytes / len(piece.block_range) for piece in pieces)
        key = (order.chain_id, order.dataset.name)
        self._bytes_per_block[key] = max(dense, 0.9 * self._bytes_per_block.get(key, 0.0))

    def _blocks(self, order: Order) -> int:
        found = self._bytes_per_block.get((order.chain_id, order.dataset.name))
        wanted = FIRST_BLOCKS if found is None else int(PIECE_BYTES / max(found, 1.0))
        return max(1, min(wanted, self._most))


@dataclass(frozen=True, slots=True)
class _Job:
    order: Order
    deadline: float
    ended: threading.Event
    stopped: threading.Event | None

    def require_going(self, block_range: BlockRange, last: TraceError | None) -> None:
        """Raises Unavailable once nobody waits for the rows any more, or the range's time is up."""
        if self.ended.is_set() or (self.stopped is not None and self.stopped.is_set()):
            raise Unavailable("extraction was stopped", range=block_range)
        if time.monotonic() >= self.deadline:
            if last is not None:
                raise last
            seconds = self.order.options.get("timeout_seconds", 3600)
            raise Unavailable(f"the range took longer than timeout_seconds={seconds:.0f}", range=block_range)


def _weight(error: TraceError) -> int:
    """Which error of several tries decides, the lowest: what may be cured before what a bad endpoint alone caused.

    One garbled answer can look like a new format, so that decides only when nothing else was said.
    """
    match error:
        case ForkConflict():
            return 0
        case NoAnswer():  # also Unavailable, but less than it: hence before it
            return 3
        case VerificationFailed() | Unavailable():
            return 1
        case UnknownFormat():
            return 2
    return 4


def _worth_halving(error: TraceError) -> bool:
    """Smaller calls help where one bad answer spoils many; not where nobody answers or nobody can."""
    return isinstance(error, VerificationFailed | Unavailable | UnknownFormat) and not isinstance(error, NoAnswer)


def _digest(table: pa.Table) -> str:
    digest = ContentDigest(table.schema)
    digest.update(table)
    return digest.hexdigest()


def _first_difference(one: pa.Table, other: pa.Table) -> str:
    """Block and column of the first row that differs."""
    for row in range(min(one.num_rows, other.num_rows)):
        for name in one.column_names:
            if one[name][row] != other[name][row]:
                return f"block {one['block_number'][row]}, {name}"
    longer = one if one.num_rows > other.num_rows else other
    return f"block {longer['block_number'][min(one.num_rows, other.num_rows)]}, which has more rows"
