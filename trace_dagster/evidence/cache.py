"""Evidence that several datasets of a chain need: fetched and proven once per process, and kept for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import LearnedForms
from trace_dagster.evidence.needs import all_needs
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.evidence.single_flight import SingleFlight
from trace_dagster.verify.check import EvidenceNeeds, evidence_needed

BATCH_BLOCKS = 50
"""Blocks that are fetched, and kept, together."""

_RUN_BATCHES = 4
"""Consecutive batches that are fetched and proven at once: their answers are in memory all together."""

CACHE_BYTES = 16 * 1024 * 1024
"""Memory for kept evidence: 4,500 blocks of the benchmark's chain, several times the distance of a run's streams."""

LEAST_BATCHES, LEAST_BATCHES_BYTES = 16, 192 * 1024 * 1024
"""So many batches of heavy blocks are kept beyond CACHE_BYTES, as long as they take no more than this."""

WAIT_SECONDS = 3600.0
"""Longest wait for evidence that another thread fetches."""


class EvidenceBatch(NamedTuple):
    """Cache key: a block range whose evidence is fetched from one endpoint in one batch of calls.

    ``needs`` is part of the key because a batch that was fetched before another dataset joined lacks the evidence that
    this dataset needs.
    """

    endpoint: str
    """The endpoint's fingerprint."""
    chain_id: int
    needs: EvidenceNeeds
    start: int
    end: int


def batches_of(
    piece: BlockRange, within: BlockRange, endpoint: str, chain_id: int, needs: EvidenceNeeds
) -> list[EvidenceBatch]:
    """Return the batches of ``within`` that hold ``piece``. They lie on one grid, so different pieces share them."""
    first, last = piece.start // BATCH_BLOCKS, (piece.end - 1) // BATCH_BLOCKS
    return [
        EvidenceBatch(
            endpoint,
            chain_id,
            needs,
            max(place * BATCH_BLOCKS, within.start),
            min((place + 1) * BATCH_BLOCKS, within.end),
        )
        for place in range(first, last + 1)
    ]


def consecutive(batches: Sequence[EvidenceBatch]) -> Iterator[list[EvidenceBatch]]:
    """Group batches that follow each other, at most _RUN_BATCHES in a group."""
    group: list[EvidenceBatch] = []
    for batch in batches:
        if group and (group[-1].end != batch.start or len(group) == _RUN_BATCHES):
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


class EvidenceCache:
    """Keeps the evidence of one process's ranges if several datasets of a chain need it. Thread-safe.

    It learns which datasets do from the ranges that are started: the streams of a run start together and work on the
    same blocks at the same time (``dagster_instance/executor.py``). Evidence is kept until all of them have used it;
    beyond that, as long as there is memory for it.
    """

    def __init__(self, most_bytes: int = CACHE_BYTES, least_batches: int = LEAST_BATCHES) -> None:
        self._kept: SingleFlight[EvidenceBatch, EvidenceParts] = SingleFlight(
            most_bytes, least=least_batches, most=max(most_bytes, LEAST_BATCHES_BYTES)
        )
        self.learned = LearnedForms()
        """Forms of chains that this process leaves open, because every endpoint of a pool showed them."""
        self._lock = threading.Lock()
        self._datasets: dict[int, dict[str, EvidenceNeeds]] = {}

    def expect(self, chain_id: int, dataset_name: str, needs: EvidenceNeeds | None = None) -> None:
        """Add a dataset of a chain whose rows will be verified. ``needs`` is by default what their proof needs."""
        needs = needs or evidence_needed(dataset_name)
        with self._lock:
            known = self._datasets.get(chain_id, {})
            if not (dataset_name in known and known[dataset_name].covers(needs)):
                self._datasets[chain_id] = {**known, dataset_name: needs}

    def shared_needs(self, chain_id: int) -> EvidenceNeeds | None:
        """Return what all datasets of a chain need together, or None if there is only one."""
        datasets = self._datasets.get(chain_id, {})
        return all_needs(datasets.values()) if len(datasets) > 1 else None

    def get(
        self,
        batches: list[EvidenceBatch],
        fetch: Callable[[list[EvidenceBatch]], Iterable[tuple[EvidenceParts, int]]],
    ) -> list[EvidenceParts]:
        """Return the evidence of each batch; ``fetch`` yields (parts, weight in bytes) of those that are not kept."""
        return self._kept.get(batches, fetch, WAIT_SECONDS)

    def batches(self) -> list[EvidenceBatch]:
        """Return the batches that are kept or being fetched."""
        return self._kept.keys()

    def mark_used(self, batches: Sequence[EvidenceBatch], piece: BlockRange) -> None:
        """Record that one dataset has used the evidence of a piece, and drop what all datasets of the chain have used.

        A dataset that uses a piece twice, as after a failure, may cause another dataset to fetch it again.
        """
        for batch, parts in self._kept.found(batches):
            with self._lock:
                parts.passed += min(batch.end, piece.end) - max(batch.start, piece.start)
                left = len(self._datasets[batch.chain_id]) * (batch.end - batch.start) - parts.passed
            if left <= 0:
                self._kept.forget([batch])

    def forget(self, batches: Iterable[EvidenceBatch]) -> None:
        """Fetch these batches again for the next caller."""
        self._kept.forget(batches)
