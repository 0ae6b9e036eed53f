"""The proven pieces of one range, in block order, extracted ahead of their consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future

from trace_dagster.blocks import BlockRange
from trace_dagster.extraction.range_state import STOPPED, RangeState
from trace_dagster.extraction.request import Piece
from trace_dagster.extraction.sizing import PieceSizes

LOOK_AHEAD = 2
"""Pieces of a range under way, or waiting to be taken: a range holds at most so many tables in memory."""


class PieceStream:
    """One range's pieces. One thread takes them; any thread may close the stream."""

    def __init__(
        self, state: RangeState, sizes: PieceSizes, submit: Callable[[BlockRange], Future[list[Piece]]]
    ) -> None:
        """Start the first LOOK_AHEAD pieces; ``submit`` starts one."""
        self._state = state
        self._sizes = sizes
        self._submit = submit
        self._todo = sizes.cut(state.request)
        self._ahead: deque[Future[list[Piece]]] = deque()
        for _ in range(LOOK_AHEAD):
            self._start_next()

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces. Raises the error of a piece's last try, or Unavailable with the reason of :meth:`close`."""
        try:
            while self._ahead:
                try:
                    pieces = self._ahead.popleft().result()
                except CancelledError:
                    raise self._state.stopped(self._state.request.block_range) from None
                self._sizes.learn(self._state.request, pieces)
                self._start_next()
                yield from pieces
        finally:
            self.close()

    @property
    def calls(self) -> int:
        """JSON-RPC calls of the engine so far, including those of tries that failed."""
        return self._state.calls

    def close(self, reason: str = STOPPED) -> None:
        """Cancel the pieces that wait for a thread, and start no further call for those under way. Idempotent.

        A thread that takes pieces then gets ``reason`` as its error.
        """
        self._state.close(reason)
        for future in tuple(self._ahead):
            future.cancel()

    def _start_next(self) -> None:
        """Start the next piece, if there is one. A closed range raises in the piece's own thread."""
        if (piece := next(self._todo, None)) is None:
            return
        try:
            self._ahead.append(self._submit(piece))
        except RuntimeError:  # the pool of threads is shut down
            raise self._state.stopped(piece) from None
