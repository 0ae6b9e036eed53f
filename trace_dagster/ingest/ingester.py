"""One block range from claim to commit: the path that every launch takes, from the UI, a sensor or the command line.

The Cryo op calls :meth:`Ingester.claim` and :meth:`Ingester.start`; the IO manager calls :meth:`Ingester.commit`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import ForkConflict, Refused, TraceError, Unavailable, UnknownFormat
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.evidence.needs import is_provable
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.range_state import RUN_STOPPED
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.ingest.attempt import Attempt
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.ingest.commit import CommitTarget, Committer, RangeRows
from trace_dagster.ingest.heartbeat import Heartbeats
from trace_dagster.ingest.range_extraction import RangeExtraction
from trace_dagster.messages.logs import component_log
from trace_dagster.messages.redaction import redact_error
from trace_dagster.registry.publications import Publication, Publications
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.registry.tasks import Lease, Tasks, Unclaimed, Unplanned
from trace_dagster.rpc.pools import RpcPool

_POLL_SECONDS = 0.25
_log = component_log("ingest")


@dataclass(frozen=True, slots=True)
class ChainAccess:
    """What an ingester does beyond its own range, when there is a node to compare with."""

    evidence: Callable[[StreamSpec, BlockRange], EvidenceCollector]
    """Returns the collector of the evidence that a range's rows are verified against."""
    resolve: Callable[[ForkConflict, int, RpcPool, list[str]], TraceError]
    """Acts on a conflict between this range and committed ones, see :meth:`ForkResolver.resolve`."""
    halt: Callable[[StreamSpec, str], None]
    """Stops a stream until its job is resumed."""


class Ingester:
    """Claims, extracts, verifies and commits ranges. Thread-safe."""

    def __init__(
        self,
        *,
        tasks: Tasks,
        publications: Publications,
        committer: Committer,
        extractor: Extractor,
        heartbeats: Heartbeats,
        pool: Callable[[StreamSpec], RpcPool],
        chain: ChainAccess | None = None,
    ) -> None:
        """``chain`` is None for an engine without a node: rows are then checked for their structure only."""
        self._tasks = tasks
        self._publications = publications
        self._committer = committer
        self._extractor = extractor
        self._heartbeats = heartbeats
        self._pool = pool
        self._chain = chain
        self._lock = threading.Lock()
        self._open: set[RangeExtraction] = set()

    def claim(
        self,
        spec: StreamSpec,
        block_range: BlockRange,
        run_id: str,
        *,
        wait_seconds: float,
        refresh: bool = False,
        manual: bool = True,
    ) -> ClaimedRange | Publication | None:
        """Claim a range, or return its publication if it is committed already (without any RPC call).

        Return None if the range failed, waits for its next try, is leased elsewhere or not planned, unless a person
        asked for it (``manual``). Wait for a free slot of the stream (``max_inflight``), and up to ``wait_seconds`` for
        another run that holds the range. ``refresh`` claims a committed range as well, to compare it with the chain.

        Raises Unavailable after that wait, and Refused if the range is not a cell of the plan or its job is paused.
        """
        identity = spec.task_id(block_range)
        deadline = time.monotonic() + wait_seconds

        def take() -> Lease | Unclaimed:
            return self._tasks.claim(
                identity,
                spec.dataset_uuid,
                block_range,
                run_id,
                refresh=refresh,
                manual=manual,
                config_hash=spec.config_hash,
            )

        while True:
            try:
                outcome = take()
            except Unplanned:
                if not manual:
                    return None  # a range of another stream of the run: their cells may be cut in different places
                self._plan(spec, block_range, identity)
                outcome = take()
            if isinstance(outcome, Lease):
                claimed = ClaimedRange(spec, block_range, outcome)
                _log.event("claimed", **claimed.facts, attempt=outcome.attempt, run_id=run_id)
                return claimed
            if outcome is Unclaimed.NOT_DUE or (outcome is Unclaimed.LEASED and not manual):
                return None
            if outcome is Unclaimed.COMMITTED:
                published = self._publications.visible(spec.dataset_uuid, block_range)
                if published is not None:
                    return published
            if outcome is not Unclaimed.NO_SLOT and time.monotonic() > deadline:
                raise Unavailable(
                    f"the range was not free within {wait_seconds:.0f} s: {outcome.value}", range=block_range
                )
            time.sleep(_POLL_SECONDS)

    def start(self, claimed: ClaimedRange) -> RangeExtraction:
        """Start the extraction of a claimed range. Return without waiting for its first piece.

        The caller must end the extraction by :meth:`commit` or :meth:`RangeExtraction.close`. If the start
        fails, the attempt is marked as failed and the error is raised.
        """
        spec, block_range = claimed.spec, claimed.block_range
        attempt = Attempt(claimed.lease, self._tasks, self._heartbeats, claimed.facts)
        try:
            pool = self._pool(spec)
            request = RangeRequest.of(spec, block_range, pool, self._evidence(spec, block_range))
            pieces = self._extractor.start(request, attempt.lost)
        except BaseException as error:
            redact_error(error)
            attempt.fail(error)
            raise
        extraction = RangeExtraction(claimed, attempt, pool, pieces, self._forget)
        with self._lock:
            self._open.add(extraction)
        return extraction

    def commit(self, extraction: RangeExtraction) -> Publication:
        """Drain an extraction into Parquet and commit it; a failure ends the attempt with its reason.

        Raises what :meth:`Committer.commit` and :meth:`RangeExtraction.tables` raise, or Unavailable if :meth:`close`
        was called before the commit, whichever part failed because of it.
        """
        claimed, started = extraction.claimed, time.monotonic()
        target = CommitTarget.of_stream(claimed.spec, claimed.block_range)
        rows = RangeRows(
            tables=extraction.tables(),
            verification=extraction.proof.summary,
            engine=self._extractor.engine_of(claimed.spec.options),
            metrics=extraction.metrics,
        )
        try:
            with self._halting(claimed.spec), self._resolving(extraction):
                published = self._committer.commit(claimed.lease, target, rows)
        except BaseException as error:
            redact_error(error)
            extraction.fail(error)
            if extraction.is_released and isinstance(error, Exception):
                raise Unavailable(RUN_STOPPED, range=claimed.block_range) from None
            raise
        extraction.succeed(
            rows=published.rows,
            bytes=published.bytes,
            seconds=round(time.monotonic() - started, 3),
            level=published.verification.get("level"),
            created=published.created,
        )
        return published

    def commit_derived(
        self, dataset_uuid: UUID, task_id: UUID, target: CommitTarget, rows: RangeRows, run_id: str
    ) -> Publication:
        """Commit a derived dataset, which replaces all that was visible of it. Raises Unavailable if it is leased."""
        self._tasks.replace(task_id, dataset_uuid, target.block_range, target.config_hash)
        outcome = self._tasks.claim(task_id, dataset_uuid, target.block_range, run_id, refresh=True)
        if not isinstance(outcome, Lease):
            raise Unavailable(f"this derived dataset is being written: {outcome.value}")
        facts = {"dataset_key": target.dataset_key, "chain_id": target.chain_id, "block_range": target.block_range}
        attempt = Attempt(outcome, self._tasks, self._heartbeats, facts)
        try:
            published = self._committer.commit(outcome, target, rows)
        except BaseException as error:
            attempt.fail(error)
            raise
        attempt.succeed(rows=published.rows, bytes=published.bytes)
        return published

    def close(self) -> None:
        """Queue every range again whose extraction is still open, because the run ends."""
        with self._lock:
            left = list(self._open)
        for extraction in left:
            extraction.release()

    def _plan(self, spec: StreamSpec, block_range: BlockRange, identity: UUID) -> None:
        """Plan a range that the planner has not planned yet, if it is a cell of the stream."""
        if not spec.is_cell(block_range):
            raise Refused(
                f"this range is not a cell of the stream's plan: its chunk_size is {spec.chunk_size}", range=block_range
            )
        self._tasks.ensure(identity, spec.dataset_uuid, block_range, spec.config_hash)

    def _evidence(self, spec: StreamSpec, block_range: BlockRange) -> EvidenceCollector | None:
        """Return None if the rows of the stream are not verified against the chain."""
        if self._chain is None or not spec.is_proven or not is_provable(spec.dataset.name):
            return None
        return self._chain.evidence(spec, block_range)

    @contextmanager
    def _halting(self, spec: StreamSpec) -> Iterator[None]:
        """Stop the whole stream, not only this range, when a form is met that this version does not know."""
        try:
            yield
        except UnknownFormat as error:
            if self._chain is not None:
                lower = "full" if spec.requires_full else "structural"
                again = f"settle it or apply `verify: {lower}`, then run `trace-lite resume` and `trace-lite retry`"
                reason = f"{error}; the stream is halted: {again}"
                self._chain.halt(spec, reason)
                _log.warning("stream_halted", job=spec.job_name, dataset_key=spec.dataset_key, reason=error)
            raise

    @contextmanager
    def _resolving(self, extraction: RangeExtraction) -> Iterator[None]:
        """Resolve a fork between this range and committed ones, and raise the error that results."""
        try:
            yield
        except ForkConflict as conflict:
            if self._chain is None:
                raise
            used = sorted(extraction.proof.endpoints)
            outcome = self._chain.resolve(conflict, extraction.claimed.spec.chain_id, extraction.pool, used)
            _log.warning("fork_resolved", **extraction.claimed.facts, block=conflict.block, reason=outcome)
            raise outcome from None

    def _forget(self, extraction: RangeExtraction) -> None:
        with self._lock:
            self._open.discard(extraction)
