"""Block range arithmetic: end-exclusive ranges, grid cells, partition keys. Pure functions only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trace_dagster.errors import InvalidInput

MAX_BLOCK = 2**63 - 1
"""The largest end a range may have: Postgres bigint."""

_KEY = re.compile(r"(\d{12,19})-(\d{12,19})")


@dataclass(frozen=True, slots=True, order=True)
class BlockRange:
    """``[start, end)``: at least one block, end-exclusive everywhere."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= MAX_BLOCK:
            raise InvalidInput("a block range needs 0 <= start < end <= 2^63-1", start=self.start, end=self.end)

    def __len__(self) -> int:
        return self.end - self.start

    def __contains__(self, block: int) -> bool:
        return self.start <= block < self.end

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"

    @property
    def key(self) -> str:
        """The partition key, ``{start:012d}-{end:012d}``: sorts like the range itself."""
        return f"{self.start:012d}-{self.end:012d}"

    @classmethod
    def from_key(cls, key: str) -> BlockRange:
        """Parse a partition key. Raises InvalidInput for anything :attr:`key` would not print."""
        match = _KEY.fullmatch(key)
        if not match:
            raise InvalidInput("a partition key looks like 000000000000-000000005000", key=repr(key))
        parsed = cls(int(match[1]), int(match[2]))
        if parsed.key != key:
            raise InvalidInput("a partition key is zero-padded to 12 digits", key=repr(key))
        return parsed

    def split(self, blocks: int) -> Iterator[BlockRange]:
        """Cut into pieces of at most ``blocks`` blocks, in order."""
        for start in range(self.start, self.end, blocks):
            yield BlockRange(start, min(start + blocks, self.end))


def cells(wanted: BlockRange, chunk_size: int) -> Iterator[BlockRange]:
    """Cut ``wanted`` at the borders of the absolute grid (multiples of ``chunk_size``)."""
    start = wanted.start
    while start < wanted.end:
        end = min((start // chunk_size + 1) * chunk_size, wanted.end)
        yield BlockRange(start, end)
        start = end


def cell_sizes(wanted: BlockRange, chunk_size: int) -> Counter[int]:
    """How many cells of how many blocks :func:`cells` cuts ``wanted`` into, without cutting it."""
    first = min(wanted.end, -(-wanted.start // chunk_size) * chunk_size)
    last = max(first, wanted.end // chunk_size * chunk_size)
    sizes = Counter([first - wanted.start, wanted.end - last])
    sizes[chunk_size] += (last - first) // chunk_size
    return Counter({size: count for size, count in sizes.items() if size and count})


def holes(wanted: BlockRange, covered: Iterable[BlockRange]) -> Iterator[BlockRange]:
    """What of ``wanted`` no range of ``covered`` touches, in order."""
    start = wanted.start
    for piece in sorted(covered):
        if piece.end <= start or piece.start >= wanted.end:
            continue
        if piece.start > start:
            yield BlockRange(start, piece.start)
        start = max(start, piece.end)
    if start < wanted.end:
        yield BlockRange(start, wanted.end)


def merged(ranges: Iterable[BlockRange]) -> list[BlockRange]:
    """The same blocks as few ranges as possible: sorted, touching and overlapping ranges joined."""
    result: list[BlockRange] = []
    for piece in sorted(ranges):
        if result and piece.start <= result[-1].end:
            result[-1] = BlockRange(result[-1].start, max(result[-1].end, piece.end))
        else:
            result.append(piece)
    return result
