"""Block range arithmetic: end-exclusive ranges, grid cells, partition keys. Pure functions only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trace_dagster.errors import InvalidInput

MAX_BLOCK = 2**63 - 1
"""The largest end of a range: the maximum of Postgres bigint."""

_KEY = re.compile(r"(\d{12,19})-(\d{12,19})")


@dataclass(frozen=True, slots=True, order=True)
class BlockRange:
    """The blocks ``[start, end)``: end-exclusive, at least one block."""

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
        """Return the partition key, ``{start:012d}-{end:012d}``. Keys sort like their ranges, below block 10^12."""
        return f"{self.start:012d}-{self.end:012d}"

    @classmethod
    def from_key(cls, key: str) -> BlockRange:
        """Parse a partition key. Raises InvalidInput unless it is exactly in the form of :attr:`key`."""
        match = _KEY.fullmatch(key)
        if not match:
            raise InvalidInput("a partition key looks like 000000000000-000000005000", key=repr(key))
        parsed = cls(int(match[1]), int(match[2]))
        if parsed.key != key:
            raise InvalidInput("a partition key is zero-padded to 12 digits", key=repr(key))
        return parsed

    def split(self, blocks: int) -> Iterator[BlockRange]:
        """Yield pieces of at most ``blocks`` blocks, in order."""
        for start in range(self.start, self.end, blocks):
            yield BlockRange(start, min(start + blocks, self.end))


def cells(block_range: BlockRange, chunk_size: int) -> Iterator[BlockRange]:
    """Yield the parts of ``block_range`` between multiples of ``chunk_size``, in order."""
    start = block_range.start
    while start < block_range.end:
        end = min((start // chunk_size + 1) * chunk_size, block_range.end)
        yield BlockRange(start, end)
        start = end


def cell_sizes(block_range: BlockRange, chunk_size: int) -> Counter[int]:
    """Return the number of :func:`cells` by their size in blocks, without making the cells."""
    first = min(block_range.end, -(-block_range.start // chunk_size) * chunk_size)
    last = max(first, block_range.end // chunk_size * chunk_size)
    sizes = Counter([first - block_range.start, block_range.end - last])
    sizes[chunk_size] += (last - first) // chunk_size
    return Counter({size: count for size, count in sizes.items() if size and count})


def holes(block_range: BlockRange, covered: Iterable[BlockRange]) -> Iterator[BlockRange]:
    """Yield the parts of ``block_range`` that no range of ``covered`` contains, in order."""
    start = block_range.start
    for piece in sorted(covered):
        if piece.end <= start or piece.start >= block_range.end:
            continue
        if piece.start > start:
            yield BlockRange(start, piece.start)
        start = max(start, piece.end)
    if start < block_range.end:
        yield BlockRange(start, block_range.end)


def merged(ranges: Iterable[BlockRange]) -> list[BlockRange]:
    """Return the same blocks as few sorted ranges: touching and overlapping ranges are joined."""
    result: list[BlockRange] = []
    for piece in sorted(ranges):
        if result and piece.start <= result[-1].end:
            result[-1] = BlockRange(result[-1].start, max(result[-1].end, piece.end))
        else:
            result.append(piece)
    return result


def common_ranges(covers: Iterable[Iterable[BlockRange]]) -> list[BlockRange]:
    """Return the blocks that are in every one of ``covers``, as few sorted ranges; none if one of them is empty."""
    found = [merged(cover) for cover in covers]
    if not found or not all(found):
        return []
    whole = BlockRange(min(cover[0].start for cover in found), max(cover[-1].end for cover in found))
    return list(holes(whole, [hole for cover in found for hole in holes(whole, cover)]))
