"""Finds the first block that is another one now, by headers of one endpoint that link from its head downwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import Unavailable
from trace_dagster.registry.hot import HotSegment, HotStore
from trace_dagster.verify.model import Header

FIRST_HEADERS, MOST_HEADERS = 8, 50
"""Headers that are fetched at once: few at first, because most forks are short."""

_BOUNDARIES = 200
"""Boundaries of committed versions that are read at once."""

_SAME_BOUNDARY = 16
"""Boundaries that are read to learn the hashes of the highest: versions of several datasets end there."""

ReadHeaders = Callable[[BlockRange], Sequence[Header]]
"""Returns the proven headers of consecutive blocks."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A fork that was proven: the node's chain from ``fork_block`` on is not the stored one."""

    fork_block: int
    """The first block that differs. If no stored hash reaches down to it, the lowest block that may differ."""
    hashes: Mapping[int, bytes]
    """Hashes of the node's blocks that were looked at."""


class Known(NamedTuple):
    """Hashes that are stored for blocks: of hot blocks, and of the last blocks of committed versions."""

    hashes: Mapping[int, frozenset[bytes]]
    is_all: bool
    """True if nothing is stored below the blocks that were asked for."""


class StoredBlock(NamedTuple):
    """A block with the hashes that are stored for it: several if versions end there on different forks."""

    number: int
    hashes: frozenset[bytes]


def find_fork(top: int, read: ReadHeaders, known: Callable[[BlockRange], Known]) -> Fork | None:
    """Return the fork between the node's chain, from its block ``top`` downwards, and the stored one.

    Return None if the highest block below or at ``top`` that is stored is the node's. Raises Unavailable if the node's
    headers do not link, because its chain changed meanwhile.
    """
    hashes: dict[int, bytes] = {}
    end, size = top + 1, FIRST_HEADERS
    above: Header | None = None
    lowest: int | None = None
    while end > 0:
        span = BlockRange(max(0, end - size), end)
        headers = read(span)
        _require_linked([*headers, *([above] if above is not None else [])])
        stored = known(span)
        for header in reversed(headers):
            hashes[header.number] = header.hash
            there = stored.hashes.get(header.number)
            if there == frozenset({header.hash}):
                return None if lowest is None else Fork(header.number + 1, hashes)
            if there:
                lowest = header.number
        if stored.is_all:
            break
        above, end, size = headers[0], span.start, min(2 * size, MOST_HEADERS)
    return None if lowest is None else Fork(lowest, hashes)


def _require_linked(headers: Sequence[Header]) -> None:
    for before, after in pairwise(headers):
        if after.parent_hash != before.hash:
            raise Unavailable("the node's chain changed while its headers were read", block=after.number)


class StoredHashes:
    """Reads the hashes that are stored of a chain."""

    def __init__(self, store: HotStore, chain_id: int) -> None:
        self._store = store
        self._chain_id = chain_id

    def highest(self, top: int, segments: Sequence[HotSegment]) -> StoredBlock | None:
        """Return the highest block not above ``top`` that ends a segment of the hot chain or a committed version, None
        if there is none.
        """
        found = self._store.boundaries(self._chain_id, top + 1, _SAME_BOUNDARY)
        found += [(each.last.number, each.last.hash) for each in segments if each.last.number <= top]
        number = max((number for number, _ in found), default=None)
        return None if number is None else StoredBlock(number, frozenset(own for at, own in found if at == number))

    def known(self, span: BlockRange, lowest_stored: int | None) -> Known:
        """Return what is stored for the blocks of a span. ``lowest_stored`` is the lowest block of the hot chain."""
        found = {
            number: {hash_} for number, hash_ in self._store.hashes(self._chain_id, span.start, span.end - 1).items()
        }
        below, is_all = span.end, False
        while True:
            boundaries = self._store.boundaries(self._chain_id, below, _BOUNDARIES)
            inside = [(number, hash_) for number, hash_ in boundaries if number >= span.start]
            for number, hash_ in inside:
                found.setdefault(number, set()).add(hash_)
            if len(inside) < len(boundaries):
                break
            if len(boundaries) < _BOUNDARIES:
                is_all = lowest_stored is None or lowest_stored >= span.start
                break
            below = inside[-1][0] + 1  # another version may end there on another fork
        return Known({number: frozenset(hashes) for number, hashes in found.items()}, is_all)
