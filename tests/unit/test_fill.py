"""Which blocks are filled next, and where a fork begins: for all histories, against plain sets."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange, merged
from trace_dagster.errors import Unavailable
from trace_dagster.follow.fill import Fill, Wanted, next_fill
from trace_dagster.follow.forks import Known, find_fork
from trace_dagster.verify.model import Header

A, B = UUID(int=1), UUID(int=2)


def test_the_newest_missing_blocks_come_first():
    assert next_fill(99, [Wanted(A, 50, (BlockRange(99, 100),))], 16) == Fill(BlockRange(83, 99), frozenset({A}))


def test_the_border_ends_the_fill():
    assert next_fill(99, [Wanted(A, 90, (BlockRange(99, 100),))], 16) == Fill(BlockRange(90, 99), frozenset({A}))
    assert next_fill(99, [Wanted(A, 100, ())], 16) is None
    assert next_fill(99, [], 16) is None


def test_datasets_that_lack_the_same_blocks_are_filled_together():
    both = [Wanted(A, 0, (BlockRange(50, 100),)), Wanted(B, 45, (BlockRange(50, 100),))]
    assert next_fill(99, both, 16) == Fill(BlockRange(45, 50), frozenset({A, B}))
    only = [Wanted(A, 0, (BlockRange(50, 100),)), Wanted(B, 0, (BlockRange(60, 100),))]
    assert next_fill(99, only, 16) == Fill(BlockRange(50, 60), frozenset({B}))


_BLOCKS = st.sets(st.integers(0, 60), max_size=40)


@given(st.integers(0, 60), st.lists(st.tuples(st.integers(0, 60), _BLOCKS), min_size=1, max_size=3), st.integers(1, 20))
def test_filling_ends_with_every_wanted_block_and_no_block_twice(head, given_streams, most):
    datasets = [UUID(int=place) for place in range(len(given_streams))]
    there = {dataset: set(blocks) for dataset, (_, blocks) in zip(datasets, given_streams, strict=True)}
    starts = {dataset: start for dataset, (start, _) in zip(datasets, given_streams, strict=True)}

    def wanted():
        return [
            Wanted(each, starts[each], tuple(merged(BlockRange(block, block + 1) for block in there[each])))
            for each in datasets
        ]

    last_end = head + 1
    while (fill := next_fill(head, wanted(), most)) is not None:
        blocks = set(range(fill.block_range.start, fill.block_range.end))
        assert 1 <= len(blocks) <= most
        assert fill.block_range.end <= last_end
        for dataset in datasets:
            lacking = {block for block in blocks if block >= starts[dataset]} - there[dataset]
            assert lacking == (blocks if dataset in fill.datasets else set())
            if dataset in fill.datasets:
                there[dataset] |= blocks
        last_end = fill.block_range.end
    for dataset in datasets:
        assert there[dataset] >= set(range(starts[dataset], head + 1))


def a_hash(fork: str, number: int) -> bytes:
    return f"{fork}{number}".encode().rjust(32, b"\0")


def node(fork_block: int, top: int):
    """Return a reader of headers of a chain that differs from the stored one from ``fork_block`` on."""

    def own(number: int) -> bytes:
        return a_hash("new" if number >= fork_block else "old", number)

    def read(span: BlockRange):
        assert span.end <= top + 1
        roots = {"transactions_root": b"", "receipts_root": b"", "logs_bloom": b""}
        return [Header(n, own(n), own(n - 1), **roots) for n in range(span.start, span.end)]

    return read


def stored(blocks: set[int]):
    """Return what is known of a stored chain that has these blocks."""

    def known(span: BlockRange) -> Known:
        inside = {n: frozenset({a_hash("old", n)}) for n in blocks if n in span}
        return Known(inside, min(blocks, default=span.start) >= span.start)

    return known


@given(st.sets(st.integers(0, 300), min_size=1), st.integers(0, 301), st.integers(0, 300))
def test_a_fork_is_found_between_the_highest_common_block_and_the_lowest_other(blocks, fork_block, top):
    found = find_fork(top, node(fork_block, top), stored(blocks))
    below = [n for n in blocks if n <= top]
    other = [n for n in below if n >= fork_block]
    if not other:
        assert found is None
        return
    assert found is not None
    common = [n for n in below if n < fork_block]
    assert found.fork_block == (max(common) + 1 if common else min(other))
    assert all(found.hashes[n] == a_hash("new", n) for n in other)


def test_headers_that_do_not_link_prove_no_fork():
    def read(span):
        return node(0 if span.end > 90 else 95, 99)(span)

    with pytest.raises(Unavailable, match="changed while"):
        find_fork(99, read, stored({10}))
