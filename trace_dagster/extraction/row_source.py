"""Chooses the source of a piece's rows: Cryo, or our own decoder of proven evidence (``native``).

A stream asks for ``native`` with ``engine: native``. With ``engine: cryo`` the decoder replaces Cryo where Cryo cannot
read an answer and the same endpoint's evidence is proven, and where eth_getLogs contradicts proven receipts.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Literal, NamedTuple, TypeVar

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import NATIVE_DATASETS
from trace_dagster.decoder import tables
from trace_dagster.decoder.traces import TraceSource, hashes_by_block
from trace_dagster.errors import NoAnswer, TraceError, VerificationFailed
from trace_dagster.evidence.collector import PieceEvidence
from trace_dagster.extraction.engine_calls import EngineCalls
from trace_dagster.extraction.engine_memory import EngineMemory
from trace_dagster.extraction.range_state import RangeState
from trace_dagster.extraction.retry_rules import ANOTHER_ENDPOINT
from trace_dagster.messages.logs import component_log
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.token_transfers import TRANSFERS

RowsFrom = Literal["cryo", "native"]
NATIVE: RowsFrom = "native"
CALLS = "geth_calls"
_FROM_LOGS = ("logs", *TRANSFERS)
_REPLACEABLE = (*NATIVE_DATASETS, *TRANSFERS)
"""Datasets whose rows the decoder can build in Cryo's place."""

LOGS_METHOD = "eth_getLogs"
NoteUnreliable = Callable[[Endpoint, str, str], None]
"""Notes that a method's answers are of no use at an endpoint: endpoint, method, reason. It is no lie."""
IsUnreliable = Callable[[Endpoint, str], bool]
"""Returns whether a method was noted at an endpoint in the last hour, by any process."""

_Found = TypeVar("_Found")
_log = component_log("extraction")


class Rows(NamedTuple):
    """The rows of a piece, and what made them."""

    table: pa.Table
    source: RowsFrom
    evidence: Evidence | None = None
    """The evidence that they were built from."""


class RowSource:
    """Extracts pieces from one of the two sources. Thread-safe."""

    def __init__(self, calls: EngineCalls, note_unreliable: NoteUnreliable, is_unreliable: IsUnreliable) -> None:
        self._calls = calls
        self._is_unreliable = is_unreliable
        self._note_unreliable = note_unreliable
        self._traces = TraceSource()
        self._memory = EngineMemory()

    def extract(
        self,
        state: RangeState,
        piece: BlockRange,
        endpoint: Endpoint,
        at_once: int | None,
        evidence: PieceEvidence | None,
        gathered: Future[Evidence] | None = None,
    ) -> Rows:
        """Return the rows of a piece at one endpoint. ``gathered`` is its evidence under way, if there is one.

        Raises the engine's error if the decoder cannot replace it, or the decoder's for a stream that asks for it.
        """
        request = state.request
        if evidence is None or request.dataset.name not in _REPLACEABLE:
            return Rows(self._calls.extract(state, piece, endpoint, at_once), "cryo")
        if request.engine == NATIVE:
            found = result(state, piece, endpoint, gathered) if gathered else evidence.gather_for_rows(endpoint)
            if self._has_rows(state, found):
                return self._native(state, endpoint, found)
            return Rows(self._calls.extract(state, piece, endpoint, at_once), "cryo")
        if self._is_avoided(state, endpoint) and (rows := self._instead(state, endpoint, evidence)):
            return rows
        try:
            rows = Rows(self._calls.extract(state, piece, endpoint, at_once), "cryo")
        except NoAnswer:
            raise
        except TraceError as error:
            state.require_running(piece)
            replaced = self._instead(state, endpoint, evidence)
            if replaced is None:
                raise
            self._failed(state, piece, endpoint, error)
            return replaced
        self._memory.succeeded(request.chain_id, request.dataset.name, endpoint)
        return rows

    def replaced(
        self,
        state: RangeState,
        piece: BlockRange,
        endpoint: Endpoint,
        evidence: PieceEvidence,
        contradiction: VerificationFailed,
    ) -> Rows:
        """Return logs from proven receipts in place of an answer of eth_getLogs that they contradict.

        Raises ``contradiction`` for other datasets, and unless the endpoint's receipts are proven.
        """
        request = state.request
        rows = self._instead(state, endpoint, evidence) if request.dataset.name in _FROM_LOGS else None
        if rows is None:
            raise contradiction
        self._memory.avoid(request.chain_id, request.dataset.name, endpoint)
        self._note(endpoint, str(contradiction))
        return rows

    def _is_avoided(self, state: RangeState, endpoint: Endpoint) -> bool:
        """Return whether Cryo should not be asked for this dataset at this endpoint."""
        request = state.request
        if self._memory.is_avoided(request.chain_id, request.dataset.name, endpoint):
            return True
        with suppress(TraceError):  # the registry does not answer
            return request.dataset.name in _FROM_LOGS and self._is_unreliable(endpoint, LOGS_METHOD)
        return False

    def _instead(self, state: RangeState, endpoint: Endpoint, evidence: PieceEvidence) -> Rows | None:
        """Return the decoder's rows, or None if the endpoint's evidence cannot be proven or does not hold them.

        Raises ForkConflict if it lies on another fork than committed rows, ExtractionFailed for a value that the schema
        cannot hold.
        """
        try:
            found = evidence.gather_for_rows(endpoint)
            return self._native(state, endpoint, found) if self._has_rows(state, found) else None
        except ANOTHER_ENDPOINT as error:
            _log.debug("no_rows_from_evidence", **state.request.facts, endpoint=endpoint.name, reason=error)
            return None

    def _native(self, state: RangeState, endpoint: Endpoint, evidence: Evidence) -> Rows:
        request = state.request
        columns = request.extracted_columns
        if request.dataset.name == CALLS:
            state.count_calls(sum(map(bool, hashes_by_block(evidence).values())))
            table = self._traces.table(endpoint, request.dataset, columns, request.chain_id, evidence)
        else:
            table = tables.table(request.dataset, columns, request.chain_id, evidence)
        return Rows(table, NATIVE, evidence)

    @staticmethod
    def _has_rows(state: RangeState, evidence: Evidence) -> bool:
        return tables.has_rows(state.request.dataset.name, evidence)

    def _failed(self, state: RangeState, piece: BlockRange, endpoint: Endpoint, error: TraceError) -> None:
        """Remember that Cryo failed where the evidence was proven."""
        request = state.request
        _log.event("rows_from_evidence", **request.facts, block_range=piece, endpoint=endpoint.name, reason=error)
        is_avoided = self._memory.failed(request.chain_id, request.dataset.name, endpoint)
        if is_avoided and request.dataset.name in _FROM_LOGS:
            self._note(endpoint, str(error))

    def _note(self, endpoint: Endpoint, reason: str) -> None:
        """Note that eth_getLogs is unreliable at the endpoint. A piece does not fail because the registry is away."""
        with suppress(TraceError):
            self._note_unreliable(endpoint, LOGS_METHOD, reason)


def result(state: RangeState, piece: BlockRange, endpoint: Endpoint, gathered: Future[_Found]) -> _Found:
    """Wait for what is fetched in another thread. Raises NoAnswer if it does not arrive before the range's deadline."""
    try:
        return gathered.result(timeout=state.seconds_left)
    except FutureTimeout:
        raise NoAnswer(f"rpc endpoint {endpoint.name} timed out while fetching evidence", range=piece) from None
