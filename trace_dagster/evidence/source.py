"""Interface of evidence sources: committed rows, a node, or a cache in front of a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trace_dagster.blocks import BlockRange
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.verify.check import EvidenceNeeds
from trace_dagster.verify.model import Header


class EvidenceSource(Protocol):
    """Answers with the headers, transactions and receipts of a piece: committed rows, a node, or a cache around it."""

    def parts(self, piece: BlockRange, needs: EvidenceNeeds, headers: Sequence[Header] | None = None) -> EvidenceParts:
        """Return the needed parts that this source has; ``headers`` are those of the piece, if they are known."""
