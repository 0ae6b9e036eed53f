"""What was proven of a range, collected piece by piece for its manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP
from trace_dagster.extraction.request import Piece
from trace_dagster.verify.check import Proof, merge

_MOST_LOWERED = 100
"""Runs of lowered blocks that a manifest names; ``levels`` counts all of them."""


@dataclass(slots=True)
class RangeProof:
    """The proofs of a range's pieces so far, the endpoints of their rows, and the sources of their evidence."""

    verify: str
    """The level that the stream asks for."""
    quorum: int
    """Number of endpoints that must give the same rows."""
    proofs: list[Proof] = field(default_factory=list)
    endpoints: Counter[str] = field(default_factory=Counter)
    """Blocks by the name of the endpoint that gave their rows."""
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    """Blocks by source (``committed rows`` or ``rpc``), for each part of the evidence."""
    rows_from: Counter[str] = field(default_factory=Counter)
    """Blocks by what made their rows: cryo, or native for our own decoder of evidence."""
    has_claimed_times: bool = False
    """Whether block_timestamp of some rows is what a node claims."""
    seconds: float = 0.0
    """Time spent waiting for evidence after the rows had arrived, and comparing."""

    def add(self, piece: Piece) -> None:
        """Add the next piece, in block order."""
        if piece.proof is not None:
            self.proofs.append(piece.proof)
        for name in piece.endpoints:
            self.endpoints[name] += len(piece.block_range)
        for part, source in piece.source.items():
            self.sources.setdefault(part, Counter())[source] += len(piece.block_range)
        self.has_claimed_times |= not piece.has_proven_times
        self.rows_from[piece.rows_from] += len(piece.block_range)
        self.seconds += piece.evidence_seconds

    @property
    def rpc_calls(self) -> int:
        """Calls for evidence from a node: one per block, and one more if receipts are needed.

        Evidence that several streams share counts for each of them.
        """
        fetched = {part: sources["rpc"] for part, sources in self.sources.items()}
        receipts = fetched.pop("receipts", 0)
        return max(fetched.values(), default=0) + receipts

    def summary(self) -> dict[str, Any]:
        """Return the manifest's ``verification`` member. Raises VerificationFailed if two pieces do not link."""
        if not self.proofs:
            unproven = ["everything", BLOCK_TIMESTAMP]
            return {"asked": self.verify, "level": "off", "checks": [], "unproven": unproven}
        proof = merge(self.proofs)
        boundary = {"first_parent_hash": proof.first_parent_hash, "last_block_hash": proof.last_block_hash}
        return {
            "asked": self.verify,
            "level": proof.level,
            "levels": dict(proof.levels),
            "lowered": [asdict(each) for each in proof.lowered[:_MOST_LOWERED]],
            "checks": list(proof.checks),
            "unproven": self._unproven(proof),
            "blocks": proof.blocks,
            "boundary": {name: f"0x{value.hex()}" for name, value in boundary.items() if value is not None},
            "evidence": {part: dict(sources) for part, sources in self.sources.items()},
            "endpoints": dict(self.endpoints),
            "rows_from": dict(self.rows_from),
            "quorum": self.quorum,
            "seconds": round(self.seconds, 3),
        }

    def _unproven(self, proof: Proof) -> list[str]:
        """Return the statements about what is not proven: for all blocks, then for those that are lowered."""
        times = [BLOCK_TIMESTAMP] if self.has_claimed_times else []
        if set(proof.levels) == {"structural"}:
            return ["everything but the rows' structure", *times]
        open_blocks = sum(each.blocks for each in proof.lowered)
        more = [f"rows of {open_blocks} blocks, see lowered"] if open_blocks else []
        return [*proof.unproven, *times, *more]
