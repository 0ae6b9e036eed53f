"""The time of each block of a piece, for column ``block_timestamp`` of every dataset.

The evidence's headers have it; without evidence it is what the same endpoint claims: in the rows, if their dataset has
the column ``timestamp``, else in the headers, which are fetched.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import chain_of
from trace_dagster.engine.base import Engine
from trace_dagster.evidence.claimed_times import ClaimedTimes
from trace_dagster.evidence.needs import fetches_times
from trace_dagster.extraction.range_state import RangeState
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.extraction.row_source import result
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.block_times import claimed_microseconds, microseconds, times_in_rows


class BlockTimes(NamedTuple):
    """The times of a piece's blocks."""

    microseconds: pa.Array
    """Since 1970, one per block (int64)."""
    is_proven: bool
    """False if some of them are what a node claims."""


class TimeSource:
    """Finds block times. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._claimed = ClaimedTimes()

    def of(
        self,
        state: RangeState,
        piece: BlockRange,
        endpoint: Endpoint,
        table: pa.Table,
        evidence: Evidence | None,
        fetched: Future[list[int]] | None = None,
    ) -> BlockTimes:
        """Return the times of a piece's blocks. ``table`` has the endpoint's rows; ``fetched`` is :meth:`fetch` under
        way.

        Raises the error of a timestamp that is no time between 1970 and 9999, and what :meth:`fetch` raises.
        """
        chain = chain_of(state.request.chain_id)
        if evidence is not None:
            is_proven = all(each.is_proven for each in evidence.headers)
            return _times(microseconds(evidence.headers, chain), is_proven=is_proven)
        if (made_up := self._engine.made_up_times(piece)) is not None:
            return _times(claimed_microseconds(made_up, piece.start, chain), is_proven=False)
        if (shown := times_in_rows(table, piece)) is not None:
            return _times(claimed_microseconds(shown, piece.start, chain), is_proven=False)
        found = self.fetch(state, piece, endpoint) if fetched is None else result(state, piece, endpoint, fetched)
        return _times(found, is_proven=False)

    def are_fetched(self, request: RangeRequest, piece: BlockRange) -> bool:
        """Return whether the times of a piece come from headers that are fetched for this."""
        is_needed = fetches_times(request.dataset.name, request.engine_columns, proven=request.evidence is not None)
        return is_needed and self._engine.made_up_times(piece) is None

    def fetch(self, state: RangeState, piece: BlockRange, endpoint: Endpoint) -> list[int]:
        """Return the times that the endpoint claims in its headers. Raises what :meth:`ClaimedTimes.of` raises."""
        return self._claimed.of(endpoint, chain_of(state.request.chain_id), piece, state.count_calls)

    def forget(self, state: RangeState, piece: BlockRange, endpoint: Endpoint) -> None:
        """Drop what the endpoint claimed, because the piece failed there."""
        self._claimed.forget(endpoint, chain_of(state.request.chain_id), piece)


def _times(found: list[int], *, is_proven: bool) -> BlockTimes:
    return BlockTimes(pa.array(found, pa.int64()), is_proven)
