"""Fetches blocks and their receipts from the chain's endpoints, proves them, and builds the hot rows of all streams.

A block takes two calls in one HTTP request: eth_getBlockByNumber and eth_getBlockReceipts. Answers are by number, so
two calls may see two forks: then the roots contradict each other, and both calls are repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import ExtractionFailed, NoQuorum, TraceError, Unavailable, UnknownFormat, VerificationFailed
from trace_dagster.evidence.needs import ONLY_HEADERS, all_needs
from trace_dagster.evidence.node_source import NULL, NodeSource
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.extraction.blame import Blame, LiarRecorder, PieceBlame
from trace_dagster.extraction.retry_rules import ANOTHER_ENDPOINT, decisive
from trace_dagster.follow.block_rows import RowBuilder, lowest
from trace_dagster.follow.endpoints import TipEndpoints
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.hot import HotBlock, HotRows
from trace_dagster.rpc.client import call_all
from trace_dagster.rpc.heads import Head, latest_head
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.commitments import prove, rpc_json
from trace_dagster.verify.model import Header
from trace_dagster.verify.rows.block_times import microseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BLAMED = "blocks"
"""The dataset under which endpoints are blamed: the header contradicts what they show."""

_MOST_ACCUSED = 64

_log = component_log("follow")
_PASSED_OVER = (*ANOTHER_ENDPOINT, ExtractionFailed)
"""Errors after which another endpoint is asked. What cannot be stored need not be what the others have."""

Built = dict[int, tuple[HotRows, str]]
"""Rows and level by block."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Proven blocks with their rows, ascending and linked, and the endpoint that gave them."""

    endpoint: Endpoint
    blocks: Sequence[HotBlock]
    left_out: Mapping[UUID, TraceError] = field(default_factory=dict)
    """Datasets without rows in some of the blocks, with the reason."""


class BlockSource:
    """Fetches blocks of one chain. Thread-safe."""

    def __init__(self, chain_id: int, endpoints: TipEndpoints, record_lie: LiarRecorder) -> None:
        self._chain = chain_of(chain_id)
        self._endpoints = endpoints
        self._blame = Blame(record_lie)
        self._accused: deque[PieceBlame] = deque(maxlen=_MOST_ACCUSED)
        """Headers that failed at an endpoint and were not shown by another yet."""

    def fetch(self, piece: BlockRange, builders: Sequence[RowBuilder], shown_at: datetime | None = None) -> Fetched:
        """Return blocks from the first endpoint that can prove them with the rows of every stream. ``shown_at`` is when
        the follower learned of them.

        If none can for some stream, its rows are left out, with the reason. Raises the error that decides if no
        endpoint has the blocks: Unavailable, VerificationFailed, WrongChain.
        """
        blame = self._blame.of(self._chain, _BLAMED, piece)
        failures: dict[str, TraceError] = {}
        partial: list[Fetched] = []
        decided: TraceError | None = None
        for endpoint in self._endpoints.ordered():
            try:
                found = self._with_quorum(self._proven(endpoint, piece, builders, shown_at, blame), piece, builders)
            except _PASSED_OVER as error:
                self._endpoints.passed_over(endpoint, error)
                _log.debug("endpoint_passed_over", chain_id=self._chain.chain_id, endpoint=endpoint.name, reason=error)
                failures[endpoint.name] = error
                decided = decisive(decided, error)
                continue
            blame.passed(is_lowered=bool(found.left_out))
            if not found.left_out:
                return found
            partial.append(found)
        if not partial:
            raise decided or Unavailable("the pools of the streams have no endpoint", chain_id=self._chain.chain_id)
        if self._learn(partial, failures, builders):
            return self.fetch(piece, builders, shown_at)
        return partial[0]

    def fetch_at(self, endpoint: Endpoint, piece: BlockRange, builders: Sequence[RowBuilder]) -> Fetched:
        """Return blocks from one endpoint. Raises what :meth:`fetch` raises."""
        blame = self._blame.of(self._chain, _BLAMED, piece)
        found = self._with_quorum(self._proven(endpoint, piece, builders, None, blame), piece, builders)
        blame.passed(is_lowered=bool(found.left_out))
        return found

    def headers(self, endpoint: Endpoint, piece: BlockRange) -> Sequence[Header]:
        """Return the proven headers of consecutive blocks, which link. Raises what :meth:`fetch` raises.

        Headers that do not prove their hash are a lie as wrong blocks are, if need be once another endpoint has shown
        these headers.
        """
        try:
            found = self._parts(endpoint, piece, ()).headers or ()
        except VerificationFailed as error:
            raise self._judged(endpoint, piece, error) from None
        for blame in [
            each for each in self._accused if piece.start <= each.piece.start and each.piece.end <= piece.end
        ]:
            blame.passed(is_lowered=True)  # headers alone do not prove a block in full
            self._accused.remove(blame)
        return found

    def _judged(self, endpoint: Endpoint, piece: BlockRange, error: VerificationFailed) -> TraceError:
        """Return why headers failed, noted as a lie if one of them fails by itself again: headers that only do not link
        may be of two forks.
        """
        try:
            self.hashes_at(endpoint, range(piece.start, piece.end))
        except VerificationFailed as again:
            blame = self._blame.of(self._chain, _BLAMED, piece)
            self._accused.append(blame)
            return blame.failed(endpoint, again)
        except TraceError:
            pass
        return error

    def hash_at(self, endpoint: Endpoint, number: int) -> bytes | None:
        """Return the proven hash of an endpoint's block, None if it does not have the block.

        Raises Unavailable, VerificationFailed.
        """
        return self.hashes_at(endpoint, [number])[0]

    def hashes_at(self, endpoint: Endpoint, numbers: Sequence[int]) -> list[bytes | None]:
        """Return the proven hashes of an endpoint's blocks, asked in one request; see :meth:`hash_at`."""
        answers = call_all(endpoint, [("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
        return [
            None
            if memoryview(answer) == NULL
            else prove.prove_header(rpc_json.decode_block(answer, full=False), number, self._chain).hash
            for number, answer in zip(numbers, answers, strict=True)
        ]

    def latest(self, below: Head | None = None) -> Head:
        """Return the head that the first endpoint shows which answers. Raises Unavailable if none does.

        If ``below`` is given, a head that cannot be fetched, the first one below it if there is such a head.
        """
        failed: TraceError | None = None
        shown: Head | None = None
        for endpoint in self._endpoints.ordered():
            try:
                head = latest_head(endpoint)
            except TraceError as error:
                self._endpoints.passed_over(endpoint, error)
                failed = error
                continue
            if below is None or head.number < below.number:
                return head
            shown = shown or head
        if shown is not None:
            return shown
        raise failed or Unavailable("the pools of the streams have no endpoint", chain_id=self._chain.chain_id)

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints, the best first."""
        return self._endpoints.ordered()

    def pass_over(self, endpoint: Endpoint, error: TraceError) -> None:
        """Ask an endpoint last for a moment."""
        self._endpoints.passed_over(endpoint, error)

    def _proven(
        self,
        endpoint: Endpoint,
        piece: BlockRange,
        builders: Sequence[RowBuilder],
        shown_at: datetime | None,
        blame: PieceBlame,
    ) -> Fetched:
        """Return blocks of one endpoint. Ask a second time if answers contradict each other: the chain may have forked
        between two of them.
        """
        try:
            return self._once(endpoint, piece, builders, shown_at)
        except VerificationFailed:
            pass
        try:
            return self._once(endpoint, piece, builders, shown_at)
        except _PASSED_OVER as error:
            raise blame.failed(endpoint, error) from None

    def _once(
        self,
        endpoint: Endpoint,
        piece: BlockRange,
        builders: Sequence[RowBuilder],
        shown_at: datetime | None,
    ) -> Fetched:
        parts = self._parts(endpoint, piece, builders)
        left_out: dict[UUID, TraceError] = {}
        built = {each.spec.dataset_uuid: _built(each, piece, parts, left_out) for each in builders}
        headers = parts.headers or ()
        blocks = []
        for header, time in zip(headers, microseconds(headers, self._chain), strict=True):
            here = {dataset: found[header.number] for dataset, found in built.items() if header.number in found}
            blocks.append(
                HotBlock(
                    number=header.number,
                    hash=header.hash,
                    parent_hash=header.parent_hash,
                    timestamp=_EPOCH + timedelta(microseconds=time),
                    level=lowest(level for _, level in here.values()) if header.is_proven else "structural",
                    rows={dataset: rows for dataset, (rows, _) in here.items()},
                    shown_at=shown_at,
                )
            )
        return Fetched(endpoint, blocks, left_out)

    def _parts(self, endpoint: Endpoint, piece: BlockRange, builders: Sequence[RowBuilder]) -> EvidenceParts:
        checks = self._endpoints.must_check_chain(endpoint)
        needs = all_needs([each.needs for each in builders]) if builders else ONLY_HEADERS
        found = NodeSource(endpoint, self._chain, None, checks_chain=checks).parts(piece, needs)
        if checks:
            self._endpoints.note_checked(endpoint)
        return found

    def _with_quorum(self, found: Fetched, piece: BlockRange, builders: Sequence[RowBuilder]) -> Fetched:
        """Return the blocks if enough other endpoints give the same. Raises NoQuorum, or Unavailable if too few do."""
        missing = self._endpoints.quorum - 1
        for endpoint in self._endpoints.ordered() if missing > 0 else ():
            if endpoint.url == found.endpoint.url or missing == 0:
                continue
            try:
                other = self._once(endpoint, piece, builders, None)
            except _PASSED_OVER:
                continue
            if not _are_same(found, other):
                raise NoQuorum(f"rpc endpoints {found.endpoint.name} and {endpoint.name} give other rows", range=piece)
            missing -= 1
        if missing > 0:
            raise Unavailable(f"no quorum of {self._endpoints.quorum} endpoints has the blocks yet", range=piece)
        return found

    @staticmethod
    def _learn(partial: Sequence[Fetched], failures: Mapping[str, TraceError], builders: Sequence[RowBuilder]) -> bool:
        """Leave forms open from now on that every endpoint showed; return whether there are some."""
        learned = False
        for builder in builders:
            reasons = [each.left_out.get(builder.spec.dataset_uuid) for each in partial]
            if all(reasons):
                learned |= builder.learn_from([*failures.values(), *(each for each in reasons if each is not None)])
        return learned


def _built(builder: RowBuilder, piece: BlockRange, parts: EvidenceParts, left_out: dict[UUID, TraceError]) -> Built:
    """Return rows and level of each block of a piece. A block whose rows cannot be built is left out by itself."""
    try:
        found = builder.build(piece, parts)
    except (ExtractionFailed, UnknownFormat) as error:
        if len(piece) == 1:
            left_out[builder.spec.dataset_uuid] = error
            return {}
        middle = len(piece) // 2
        first, second = BlockRange(piece.start, piece.start + middle), BlockRange(piece.start + middle, piece.end)
        return {
            **_built(builder, first, parts.slice(0, middle), left_out),
            **_built(builder, second, parts.slice(middle, len(piece)), left_out),
        }
    return dict(enumerate(zip(found.rows, found.levels, strict=True), piece.start))


def _are_same(one: Fetched, other: Fetched) -> bool:
    return [(each.hash, each.rows) for each in one.blocks] == [(each.hash, each.rows) for each in other.blocks]
