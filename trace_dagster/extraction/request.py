"""What to extract and prove of one range, and a proven piece of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.datasets.levels import VerifiedAsAsked
from trace_dagster.errors import TraceError, UnknownFormat
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.verify.check import Proof, check, extracted_columns
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.receipt_columns import can_fill_from_receipts, fill_receipt_columns, requested_columns


@dataclass(frozen=True, slots=True)
class RangeRequest(VerifiedAsAsked):
    """One range of a dataset, the columns to keep, and how its rows are verified."""

    dataset: Dataset
    block_range: BlockRange
    chain_id: int
    columns: tuple[str, ...]
    """Columns that are kept. The proof may need others, which are extracted as well and then dropped."""
    verify: str
    """full, require_full, structural or off."""
    pool: RpcPool
    evidence: EvidenceCollector | None
    """None if the rows are not compared with the chain."""
    options: dict[str, Any] = field(default_factory=dict)
    """Engine options of the stream: rates, and ``timeout_seconds`` for the whole range."""

    @classmethod
    def of(
        cls, spec: StreamSpec, block_range: BlockRange, pool: RpcPool, evidence: EvidenceCollector | None
    ) -> RangeRequest:
        """Return the request for one range of a stream."""
        return cls(
            dataset=spec.dataset,
            block_range=block_range,
            chain_id=spec.chain_id,
            columns=spec.columns,
            verify=spec.verify,
            pool=pool,
            evidence=evidence,
            options=spec.options,
        )

    @property
    def facts(self) -> dict[str, object]:
        """The names of the request in log lines."""
        return {"dataset": self.dataset.name, "chain_id": self.chain_id}

    @property
    def engine(self) -> str:
        """The source of rows that the stream asks for: cryo or native."""
        return str(self.options.get("engine", "cryo"))

    @property
    def extracted_columns(self) -> tuple[str, ...]:
        """Every column of a piece, in schema order: those that are kept, and those that the proof reads."""
        return extracted_columns(self.dataset, self.columns, self.check_level)

    @property
    def engine_columns(self) -> tuple[str, ...]:
        """The columns that the engine extracts; proven receipts supply the rest."""
        proven = self.evidence is not None
        supplied = can_fill_from_receipts(proven=proven, quorum=self.pool.quorum)
        return requested_columns(self.dataset, self.columns, self.check_level, from_receipts=supplied)

    def may_leave_open(self, failures: Iterable[TraceError]) -> bool:
        """Return whether a form is left open from now on, see :meth:`EvidenceCollector.learn_from`."""
        return self.evidence is not None and self.evidence.learn_from(failures)

    def may_be_proven_elsewhere(self, piece: Piece) -> bool:
        """Return whether another endpoint might prove blocks of a piece that are lowered at this one."""
        if self.evidence is None or piece.proof is None:
            return False
        return any(not self.evidence.is_open_everywhere(each.first_block) for each in piece.proof.lowered)

    def prove(self, table: pa.Table, piece: BlockRange, evidence: Evidence) -> tuple[pa.Table, Proof]:
        """Return the engine's rows with every extracted column, and their proof. Raises VerificationFailed."""
        whole = fill_receipt_columns(table, evidence, self.dataset.engine_schema(self.extracted_columns))
        proof = check(self.dataset, whole, piece, self.chain_id, evidence)
        if proof.lowered and self.requires_full:
            raise UnknownFormat(f"{proof.lowered[0].reason} (verify: require_full)", block=proof.lowered[0].first_block)
        return whole, proof


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of consecutive blocks of a range, with the proof that they are right."""

    block_range: BlockRange
    table: pa.Table
    """The request's columns with the lake's types, in schema order; rows in the dataset's order."""
    proof: Proof | None
    source: dict[str, str]
    """Source of each part of the evidence: ``committed rows`` or ``rpc``."""
    endpoints: tuple[str, ...]
    """Names of the endpoints that gave the rows; more than one under a quorum."""
    evidence_seconds: float
    """Time spent waiting for evidence after the rows had arrived, and comparing."""
    rows_from: str = "cryo"
    """What made the rows: cryo, or native for our own decoder of evidence."""
    has_proven_times: bool = False
    """Whether proven headers give every row's block_timestamp."""

    @property
    def is_lowered(self) -> bool:
        """True if the chain's forms leave the proof of some blocks open."""
        return self.proof is not None and bool(self.proof.lowered)
