"""Evidence from a node through the process's cache: fetched for all datasets of the chain that need it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import Chain
from trace_dagster.evidence.cache import EvidenceBatch, EvidenceCache, batches_of, consecutive
from trace_dagster.evidence.needs import NOTHING
from trace_dagster.evidence.node_source import NodeSource
from trace_dagster.evidence.parts import EvidenceParts, joined
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.check import EvidenceNeeds
from trace_dagster.verify.model import Header


class CachedNodeSource:
    """A node's evidence, fetched in batches that hold what all datasets of the chain need."""

    def __init__(
        self, cache: EvidenceCache, endpoint: Endpoint, chain: Chain, within: BlockRange, shared_needs: EvidenceNeeds
    ) -> None:
        """``within`` are the blocks that are known to be final: no batch reaches beyond them."""
        self._cache = cache
        self._node = NodeSource(endpoint, chain, None)
        self._within = within
        self._shared_needs = shared_needs

    def parts(self, piece: BlockRange, needs: EvidenceNeeds, headers: Sequence[Header] | None = None) -> EvidenceParts:
        """Return what is needed of a piece, as :meth:`NodeSource.parts` does; its headers always come with it."""
        del headers
        batches = self._batches(piece)
        found = EvidenceParts()
        if needs != NOTHING:
            whole = joined(self._cache.get(batches, self._fetch))
            found = whole.slice(piece.start - batches[0].start, piece.end - batches[0].start).only(needs)
        self._cache.mark_used(batches, piece)
        return found

    def forget(self, piece: BlockRange) -> None:
        """Fetch the evidence of a piece again for the next caller."""
        self._cache.forget(self._batches(piece))

    def _fetch(self, batches: list[EvidenceBatch]) -> Iterator[tuple[EvidenceParts, int]]:
        for group in consecutive(batches):
            span = BlockRange(group[0].start, group[-1].end)
            found = self._node.parts(span, self._shared_needs)
            for batch in group:
                yield found.slice(batch.start - span.start, batch.end - span.start), found.weight // len(group)

    def _batches(self, piece: BlockRange) -> list[EvidenceBatch]:
        endpoint = self._node.endpoint.fingerprint
        return batches_of(piece, self._within, endpoint, self._node.chain.chain_id, self._shared_needs)
