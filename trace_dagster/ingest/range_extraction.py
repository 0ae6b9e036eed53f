"""The handle that the Cryo op returns: a claimed range whose extraction has started.

It owns the attempt (lease and heartbeats) and the pieces under way. The IO manager drains it into a commit. If the IO
manager never runs, the end of the step closes the handle: the attempt ends then, not when its lease expires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from trace_dagster.errors import LeaseLost
from trace_dagster.extraction.piece_stream import PieceStream
from trace_dagster.extraction.range_state import RUN_STOPPED, STOPPED
from trace_dagster.ingest.attempt import Attempt
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.ingest.range_proof import RangeProof
from trace_dagster.rpc.pools import RpcPool


class RangeExtraction:
    """A claimed range on its way from Cryo to a commit. Only its own thread drains it; any thread may close it."""

    def __init__(
        self,
        claimed: ClaimedRange,
        attempt: Attempt,
        pool: RpcPool,
        pieces: PieceStream,
        on_end: Callable[[RangeExtraction], None],
    ) -> None:
        self.claimed = claimed
        self.attempt = attempt
        self.pool = pool
        self.proof = RangeProof(claimed.spec.verify, pool.quorum)
        self.metrics: dict[str, Any] = {"blocks": len(claimed.block_range)}
        self.is_released = False
        """Whether the run was stopped before the attempt ended: errors of the extraction are then its consequence."""
        self._pieces = pieces
        self._on_end = on_end

    def tables(self) -> Iterator[pa.Table]:
        """Yield the proven rows piece by piece, in block order, with the stream's columns.

        Raises LeaseLost when the lease lapsed and another attempt took the range, and the error of the last try when
        a piece cannot be extracted or proven.
        """
        for piece in self._pieces:
            if self.attempt.lost.is_set():
                raise LeaseLost("the lease of this range lapsed and was taken over", range=self.claimed.block_range)
            self.proof.add(piece)
            self.metrics["verification_seconds"] = round(self.proof.seconds, 3)
            self.metrics["rpc_calls"] = self._pieces.calls + self.proof.rpc_calls
            yield piece.table

    def succeed(self, **facts: object) -> None:
        """End the attempt after its commit; ``facts`` go into the log."""
        self._stop()
        self.attempt.succeed(**facts)

    def fail(self, error: BaseException) -> None:
        """End the attempt with the reason of its failure. See :meth:`Attempt.fail`."""
        self._stop()
        self.attempt.fail(error)

    def close(self) -> None:
        """End the attempt as failed unless it has ended. For the end of the step that started the extraction."""
        self._stop()
        self.attempt.abandon("the step ended before the IO manager committed the range")

    def release(self) -> None:
        """Return the range to the queue unless the attempt has ended. Used when the run stops."""
        self.is_released = True
        self.attempt.release(RUN_STOPPED)  # first: the thread that drains the pieces fails as soon as they are closed
        self._stop(RUN_STOPPED)

    def _stop(self, reason: str = STOPPED) -> None:
        """Cancel the pieces under way."""
        self._pieces.close(reason)
        self._on_end(self)
