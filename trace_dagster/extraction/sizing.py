"""How many blocks a piece has: as many as fit into PIECE_BYTES, by the size of the stream's last pieces."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dagster.blocks import BlockRange
from trace_dagster.extraction.request import Piece, RangeRequest

PIECE_BYTES = 32 * 1024 * 1024
"""Size of a piece's table, so that memory does not grow with the content of blocks."""

FIRST_BLOCKS = 100
"""Blocks of a piece as long as the size of the stream's blocks is not known."""


class PieceSizes:
    """Cuts ranges into pieces. Shared by all ranges of a process."""

    def __init__(self, most_blocks: int) -> None:
        self._most_blocks = most_blocks
        self._bytes_per_block: dict[tuple[int, str], float] = {}

    def cut(self, request: RangeRequest) -> Iterator[BlockRange]:
        """Yield the pieces of a range. Each is sized when it is started, from the estimate at that time."""
        start = request.block_range.start
        while start < request.block_range.end:
            end = min(start + self._blocks(request), request.block_range.end)
            yield BlockRange(start, end)
            start = end

    def learn(self, request: RangeRequest, pieces: list[Piece]) -> None:
        """Update the estimate of bytes per block from extracted pieces.

        The estimate is the densest of these pieces, but at least 90 % of the previous estimate: chains get busier, and
        a piece that is too large costs more than one that is too small.
        """
        dense = max(piece.table.nbytes / len(piece.block_range) for piece in pieces)
        key = (request.chain_id, request.dataset.name)
        self._bytes_per_block[key] = max(dense, 0.9 * self._bytes_per_block.get(key, 0.0))

    def _blocks(self, request: RangeRequest) -> int:
        found = self._bytes_per_block.get((request.chain_id, request.dataset.name))
        blocks = FIRST_BLOCKS if found is None else int(PIECE_BYTES / max(found, 1.0))
        return max(1, min(blocks, self._most_blocks))
