"""Collects the evidence that a piece's rows are compared with: from committed rows if they hold it, else a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import Form, Forms, LearnedForms
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import EndpointLacks, ForkConflict, Part, TraceError, UnknownForm
from trace_dagster.evidence.cache import EvidenceCache
from trace_dagster.evidence.cached_source import CachedNodeSource
from trace_dagster.evidence.committed_source import CommittedSource
from trace_dagster.evidence.needs import ONLY_HEADERS, row_needs
from trace_dagster.evidence.node_source import NodeSource
from trace_dagster.evidence.parts import PARTS, EvidenceParts
from trace_dagster.evidence.source import EvidenceSource
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.check import EvidenceNeeds, check_evidence, evidence_needed
from trace_dagster.verify.model import Evidence, Header


class EvidenceCollector:
    """The evidence for one range of one dataset. Thread-safe."""

    def __init__(
        self,
        dataset_name: str,
        chain_id: int,
        committed: CommittedSource | None,
        cache: EvidenceCache | None = None,
        within: BlockRange | None = None,
        learned: LearnedForms | None = None,
        *,
        for_rows: bool = False,
    ) -> None:
        """``within`` is the range whose blocks are known to be final; no evidence beyond it is cached.

        ``learned`` are the forms that may be left open; by default those of the cache. ``for_rows`` means that rows are
        built from the evidence: it is then whole, and all from the node.
        """
        self.dataset_name = dataset_name
        self.chain_id = chain_id
        self.forms = Forms(chain_of(chain_id), learned or (cache.learned if cache is not None else LearnedForms()))
        self.needs = evidence_needed(dataset_name)
        self.for_rows = for_rows
        self.committed = committed
        self._cache = cache
        self._within = within
        if cache is not None:
            cache.expect(chain_id, dataset_name, row_needs(dataset_name) if for_rows else None)

    def of(self, piece: BlockRange) -> PieceEvidence:
        """Return the evidence of one piece. Nothing is read or fetched before it is needed."""
        return PieceEvidence(self, piece)

    def node(self, endpoint: Endpoint, *, deep: bool = False, for_rows: bool = False) -> EvidenceSource:
        """Return the endpoint as a source; ``deep`` recovers senders from their signatures.

        For rows that are compared with it, some of the evidence may be proven by that comparison; ``for_rows`` proves
        all of it.
        """
        return NodeSource(endpoint, self.forms.chain, None if for_rows else self.dataset_name, deep=deep)

    def cached(
        self, piece: BlockRange, endpoint: Endpoint, needs: EvidenceNeeds | None = None
    ) -> CachedNodeSource | None:
        """Return a source that reads the endpoint's evidence through the shared cache.

        Returns None if there is no cache, if the cache knows fewer than two datasets of this chain, or if its evidence
        lacks some of ``needs``.
        """
        shared_needs = self._cache.shared_needs(self.chain_id) if self._cache is not None else None
        if self._cache is None or shared_needs is None or not shared_needs.covers(needs or shared_needs):
            return None
        return CachedNodeSource(self._cache, endpoint, self.forms.chain, self._within or piece, shared_needs)

    def learn(self, unknown: UnknownForm, *, here: bool = False) -> bool:
        """Leave a form open from now on, or only in this range (``here``), because every endpoint showed it.

        Return whether this chain allows that.
        """
        form = Form(unknown.part, unknown.kind)
        if not self.forms.may_learn(form, unknown.block):
            return False
        learned = self.forms.learned_here if here else self.forms.learned
        learned.add(self.chain_id, form, unknown.block)
        return True

    def learn_from(self, failures: Iterable[TraceError]) -> bool:
        """Leave a form open from now on if every endpoint showed it and none could prove it; return whether it is.

        ``failures`` has one error per endpoint. An endpoint that cannot serve the blocks has no say; but it may be able
        to prove other blocks, or other datasets, so the form is then open in this range alone.
        """
        known = list(failures)
        unknown = [each for each in known if not isinstance(each, EndpointLacks)]
        if not unknown or not all(isinstance(each, UnknownForm) for each in unknown):
            return False
        forms = {(each.part, each.kind): each for each in unknown if isinstance(each, UnknownForm)}
        return len(forms) == 1 and self.learn(next(iter(forms.values())), here=len(unknown) < len(known))

    def is_open_everywhere(self, block: int) -> bool:
        """Return whether the chain's row leaves a part of this block open that the dataset needs, at every node."""
        return any(self.forms.chain.leaves_open(part, block) for part in self.wanted)

    def open_parts(self, parts: EvidenceParts) -> dict[int, dict[Part, str]]:
        """Return the parts of blocks that this dataset's proof needs and that are left open, with the reason.

        Raises the UnknownForm of a part that may not be left open.
        """
        wanted = self.wanted
        found: dict[int, dict[Part, str]] = {}
        for block, unknown in sorted(parts.unknown.items()):
            for part in wanted.intersection(unknown):
                reason = self.forms.open_reason(Form(part, unknown[part].kind), block)
                if reason is None:
                    raise unknown[part]
                found.setdefault(block, {})[part] = reason
        return found

    @property
    def wanted(self) -> frozenset[Part]:
        """Return the parts that this dataset needs. Every part needs the header that commits to it."""
        given: tuple[tuple[Part, bool], ...] = (
            ("header", True),
            ("transactions", self.needs.transactions),
            ("receipts", self.needs.receipts),
        )
        return frozenset(part for part, is_needed in given if is_needed)


class PieceEvidence:
    """The evidence of one piece. What committed rows hold of it is read a single time, for every endpoint tried.

    One thread at a time uses it.
    """

    def __init__(self, collector: EvidenceCollector, piece: BlockRange) -> None:
        self._collector = collector
        self._piece = piece
        self._known: EvidenceParts | None = None

    def gather(self, endpoint: Endpoint) -> Evidence:
        """Return the proven evidence of every block. Only what committed rows lack is fetched from the endpoint.

        Raises VerificationFailed, Unavailable, WrongChain, UnknownForm if a form may not be left open, or ForkConflict
        if the endpoint's headers are not the committed ones.
        """
        if self._collector.for_rows:
            return self.gather_for_rows(endpoint)
        known, needed = self.known(), self._collector.needs
        lacking = _lacking(needed, known)
        source = self._collector.cached(self._piece, endpoint) or self._collector.node(endpoint)
        found = source.parts(self._piece, lacking, known.headers)
        self._require_same(known, found.headers)
        return _merged(known, found, self._collector.open_parts(found))

    def gather_for_rows(self, endpoint: Endpoint) -> Evidence:
        """Return the evidence that rows of the dataset are built from, all of it proven answers of the endpoint.

        Logs can be built without transactions, so those are left out if a form of theirs is not known. Raises what
        :meth:`gather` raises.
        """
        needs = row_needs(self._collector.dataset_name)
        source = self._collector.cached(self._piece, endpoint, needs) or self._collector.node(endpoint, for_rows=True)
        return self.for_rows_of(source.parts(self._piece, needs))

    def for_rows_of(self, found: EvidenceParts) -> Evidence:
        """Return the evidence in ``found``, proven answers of one endpoint for several datasets, as
        :meth:`gather_for_rows` does.
        """
        found = found.only(row_needs(self._collector.dataset_name))
        if "transactions" not in self._collector.wanted and any(
            "transactions" in each for each in found.unknown.values()
        ):
            found = replace(found, transactions=None)
        evidence = _merged(EvidenceParts(), found, self._collector.open_parts(found))
        check_evidence(evidence, self._piece)  # rows are built before they are compared
        self.require_one_chain(evidence)
        return evidence

    def gather_from_node(self, endpoint: Endpoint, *, deep: bool = False) -> Evidence:
        """Fetch the whole evidence from the endpoint and return it. ``deep`` recovers senders from their signatures."""
        source = self._collector.node(endpoint, deep=deep)
        found = source.parts(self._piece, self._collector.needs)
        return _merged(EvidenceParts(), found, self._collector.open_parts(found))

    def committed(self) -> Evidence | None:
        """Return the evidence that committed rows hold, or None if they do not hold the headers."""
        known = self.known()
        return Evidence(known.headers, known.transactions, known.receipts) if known.headers is not None else None

    def known(self) -> EvidenceParts:
        """Return what committed rows hold of the piece."""
        if self._known is None:
            committed = self._collector.committed
            needs = ONLY_HEADERS if self._collector.for_rows else self._collector.needs
            self._known = committed.parts(self._piece, needs) if committed else EvidenceParts()
        return self._known

    def forget(self, endpoint: Endpoint) -> None:
        """Drop this endpoint's cached evidence for the piece."""
        if (cached := self._collector.cached(self._piece, endpoint)) is not None:
            cached.forget(self._piece)

    def require_one_chain(self, fresh: Evidence) -> None:
        """Raise ForkConflict if the committed headers of the piece are not those of ``fresh``."""
        self._require_same(self.known(), fresh.headers)

    def _require_same(self, known: EvidenceParts, found: Sequence[Header] | None) -> None:
        if known.headers is None or found is None:
            return
        for old, new in zip(known.headers, found, strict=True):
            if old.hash != new.hash:
                committed = self._collector.committed
                assert committed is not None
                raise ForkConflict(
                    "the node shows another block than the one that is committed",
                    block=old.number,
                    committed=old.hash,
                    found=new.hash,
                    versions=committed.versions(self._piece),
                )


def _lacking(needed: EvidenceNeeds, known: EvidenceParts) -> EvidenceNeeds:
    """Return what has to be fetched: headers come with transactions, which they prove."""
    transactions = needed.transactions and known.transactions is None
    return EvidenceNeeds(
        headers=transactions or (needed.headers and known.headers is None),
        transactions=transactions,
        receipts=needed.receipts and known.receipts is None,
    )


def _merged(known: EvidenceParts, found: EvidenceParts, open_parts: Mapping[int, Mapping[Part, str]]) -> Evidence:
    """Return known and fetched parts as one evidence; a fetched part wins."""
    parts = {name: getattr(found, name) or getattr(known, name) for name in PARTS}
    is_all_fetched = all(getattr(found, name) is not None or parts[name] is None for name in PARTS)
    return Evidence(
        headers=parts["headers"] or (),
        transactions=parts["transactions"],
        receipts=parts["receipts"],
        proven=found.proven,
        rows=found.rows if is_all_fetched else None,  # committed parts were not compared with these rows
        source={
            name: "committed rows" if getattr(found, name) is None else "rpc"
            for name, part in parts.items()
            if part is not None
        },
        open=open_parts,
    )
