"""One range from claim to commit: the path every launch takes, whoever asked for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import (
    RETRYABLE,
    ForkConflict,
    LeaseLost,
    Refused,
    TraceError,
    Unavailable,
    UnknownFormat,
)
from trace_dagster.evidence.collector import Witness, is_provable
from trace_dagster.extraction.extractor import Order, Piece, Pieces
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.ingest.commit import Committer, Rows, Target
from trace_dagster.ingest.heartbeat import Heart
from trace_dagster.registry.publications import Publication, Publications
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.registry.tasks import Lease, Tasks, Unclaimed, Unplanned
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.verify.check import Proof, merge

_POLL_SECONDS = 0.25


class Judge(Protocol):
    """What a process knows and does beyond one range: committed evidence, settling conflicts, stopping streams."""

    def witness(self, spec: StreamSpec, block_range: BlockRange) -> Witness | None:
        """Who measures the rows of this range against the chain; None where nobody can."""

    def settle(self, conflict: ForkConflict, pool: RpcPool, used: list[str]) -> TraceError:
        """Act on a conflict between this range and committed ones; returns what ends the attempt."""

    def halt(self, spec: StreamSpec, reason: str) -> None:
        """Stop a stream until someone looks."""


class NoJudge:
    """For an engine without a node: rows are checked for structure only."""

    def witness(self, spec: StreamSpec, block_range: BlockRange) -> Witness | None:
        """Nobody."""
        del spec, block_range
        return None

    def settle(self, conflict: ForkConflict, pool: RpcPool, used: list[str]) -> TraceError:
        """It stays a conflict."""
        del pool, used
        return conflict

    def halt(self, spec: StreamSpec, reason: str) -> None:
        """The range fails, that is all."""


class Ingest:
    """Claims, extracts, verifies and commits ranges; safe to use from many threads."""

    def __init__(
        self,
        *,
        tasks: Tasks,
        publications: Publications,
        committer: Committer,
        pieces: Pieces,
        heart: Heart,
        pool: Callable[[StreamSpec], RpcPool],
        judge: Judge | None = None,
    ) -> None:
        self._tasks = tasks
        self._publications = publications
        self._committer = committer
        self._pieces = pieces
        self._heart = heart
        self._pool = pool
        self._judge: Judge = judge or NoJudge()

    def claim(
        self,
        spec: StreamSpec,
        block_range: BlockRange,
        run_id: str,
        *,
        wait_seconds: float,
        refresh: bool = False,
        by_hand: bool = True,
    ) -> ClaimedRange | Publication | None:
        """Take a range, or return what is committed already (no RPC work is done for it).

        None for a range that failed, waits before its next try or is held elsewhere, unless it is asked
        for ``by_hand``.
        Waits for a free slot of the stream, and up to ``wait_seconds`` for another run that holds the
        range; raises Unavailable after that, Refused when the range is not a cell of the plan or its
        job is paused. ``refresh`` takes a committed range too, to compare it with the chain.
        """
        identity = spec.task_id(block_range)
        deadline = time.monotonic() + wait_seconds

        def take() -> Lease | Unclaimed:
            return self._tasks.claim(identity, spec.dataset_uuid, block_range, run_id, refresh=refresh, by_hand=by_hand)

        while True:
            try:
                outcome = take()
            except Unplanned:
                self._plan(spec, block_range, identity)
                outcome = take()
            if isinstance(outcome, Lease):
                return ClaimedRange(spec, block_range, outcome)
            if outcome is Unclaimed.NOT_DUE or (outcome is Unclaimed.LEASED and not by_hand):
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

    def _plan(self, spec: StreamSpec, block_range: BlockRange, identity: UUID) -> None:
        """What nobody planned yet is planned now when it is a cell of the stream."""
        if not spec.is_cell(block_range):
            raise Refused(
                f"this range is not a cell of the stream's plan: its chunk_size is {spec.chunk_size}", range=block_range
            )
        self._tasks.ensure(identity, spec.dataset_uuid, block_range, spec.config_hash)

    def commit(self, work: ClaimedRange) -> Publication:
        """Extract, verify and commit a claimed range; a failure ends the attempt with its reason."""
        with self.holding(work.lease) as lost, self._stopping(work.spec):
            pool = self._pool(work.spec)
            ledger = _Ledger(work.spec.verify, pool.quorum)
            try:
                return self._committer.commit(work.lease, self._target(work), self._rows(work, pool, ledger, lost))
            except ForkConflict as conflict:
                raise self._judge.settle(conflict, pool, sorted(ledger.endpoints)) from None

    @contextmanager
    def _stopping(self, spec: StreamSpec) -> Iterator[None]:
        """What this version does not know stops the whole stream, not only the range that met it."""
        try:
            yield
        except UnknownFormat as error:
            again = "once it is settled, or `verify: structural` is applied, `trace-lite resume` and `trace-lite retry`"
            self._judge.halt(spec, f"{error}; the stream stands still: {again}")
            raise

    def commit_whole(self, dataset: UUID, identity: UUID, target: Target, rows: Rows, run_id: str) -> Publication:
        """Commit a derived dataset: it replaces whatever was visible of it. Raises Unavailable when it is leased."""
        self._tasks.replace(identity, dataset, target.block_range, target.config_hash)
        outcome = self._tasks.claim(identity, dataset, target.block_range, run_id, refresh=True)
        if not isinstance(outcome, Lease):
            raise Unavailable(f"this derived dataset is being written: {outcome.value}")
        with self.holding(outcome):
            return self._committer.commit(outcome, target, rows)

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[Any]:
        """Heartbeats inside the block; whatever ends it is recorded on the attempt."""
        with self._heart.beating(lease) as lost:
            try:
                yield lost
            except LeaseLost:
                raise
            except TraceError as error:
                self._tasks.fail(lease, str(error), retry=isinstance(error, RETRYABLE))
                raise
            except Exception as error:
                self._tasks.fail(lease, f"unexpected {type(error).__name__}", retry=True)
                raise
            except BaseException:
                self._tasks.release(lease)
                raise

    def _target(self, work: ClaimedRange) -> Target:
        spec = work.spec
        return Target(
            dataset_uuid=spec.dataset_uuid,
            dataset_key=spec.dataset_key,
            source=spec.dataset.name,
            chain_id=spec.chain_id,
            block_range=work.block_range,
            config_hash=spec.config_hash,
            schema=spec.dataset.schema(spec.columns),
        )

    def _rows(self, work: ClaimedRange, pool: RpcPool, ledger: _Ledger, lost: Any) -> Rows:
        spec = work.spec
        order = Order(
            dataset=spec.dataset,
            block_range=work.block_range,
            chain_id=spec.chain_id,
            stored=spec.columns,
            verify=spec.verify,
            pool=pool,
            witness=self._witness(spec, work.block_range),
            options=spec.options,
        )
        metrics: dict[str, Any] = {"blocks": len(work.block_range)}
        return Rows(
            tables=self._tables(order, ledger, metrics, lost),
            evidence=ledger.summary,
            engine=self._pieces.engine,
            metrics=metrics,
        )

    def _witness(self, spec: StreamSpec, block_range: BlockRange) -> Witness | None:
        wanted = spec.verify == "full" and is_provable(spec.dataset.name)
        return self._judge.witness(spec, block_range) if wanted else None

    def _tables(self, order: Order, ledger: _Ledger, metrics: dict[str, Any], lost: Any) -> Iterator[pa.Table]:
        for piece in self._pieces.of(order, lost):
            if lost.is_set():
                raise LeaseLost("the lease of this range lapsed and was taken over", range=order.block_range)
            ledger.add(piece)
            metrics["verification_seconds"] = round(ledger.seconds, 3)
            yield piece.table


@dataclass(slots=True)
class _Ledger:
    """What was proven of a range so far, for its manifest."""

    asked: str
    quorum: int
    proofs: list[Proof] = field(default_factory=list)
    endpoints: Counter[str] = field(default_factory=Counter)
    evidence: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, piece: Piece) -> None:
        """The next piece, in block order."""
        if piece.proof is not None:
            self.proofs.append(piece.proof)
        for name in piece.endpoints:
            self.endpoints[name] += len(piece.block_range)
        for part, source in piece.source.items():
            self.evidence.setdefault(part, Counter())[source] += len(piece.block_range)
        self.seconds += piece.evidence_seconds

    def summary(self) -> dict[str, Any]:
        """For the manifest. Raises VerificationFailed when two pieces do not fit together."""
        if not self.proofs:
            return {"asked": self.asked, "level": "off", "checks": [], "unproven": ["everything"]}
        proof = merge(self.proofs)
        boundary = {"first_parent_hash": proof.first_parent_hash, "last_block_hash": proof.last_block_hash}
        return {
            "asked": self.asked,
            "level": proof.level,
            "checks": list(proof.checks),
            "unproven": ["everything but the rows' structure"] if proof.level == "structural" else list(proof.unproven),
            "blocks": proof.blocks,
            "boundary": {name: f"0x{value.hex()}" for name, value in boundary.items() if value is not None},
            "evidence": {part: dict(sources) for part, sources in self.evidence.items()},
            "endpoints": dict(self.endpoints),
            "quorum": self.quorum,
            "seconds": round(self.seconds, 3),
        }
