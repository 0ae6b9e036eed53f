"""Block range arithmetic: tables of literal cases, then properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import MAX_BLOCK, BlockRange, cells, common_ranges, holes, merged
from trace_dagster.errors import InvalidInput

blocks = st.integers(min_value=0, max_value=10_000)
ranges = st.tuples(blocks, st.integers(1, 3_000)).map(lambda pair: BlockRange(pair[0], pair[0] + pair[1]))


@pytest.mark.parametrize(
    ("start", "end", "chunk", "expected"),
    [
        (0, 10, 5, [(0, 5), (5, 10)]),
        (0, 11, 5, [(0, 5), (5, 10), (10, 11)]),
        (3, 11, 5, [(3, 5), (5, 10), (10, 11)]),
        (7, 8, 5, [(7, 8)]),
        (0, 1, 1_000_000, [(0, 1)]),
    ],
)
def test_cells_lie_on_the_absolute_grid(start, end, chunk, expected):
    assert [(c.start, c.end) for c in cells(BlockRange(start, end), chunk)] == expected


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 4), (-1, 3), (0, MAX_BLOCK + 1)])
def test_a_range_is_never_empty_negative_or_beyond_bigint(start, end):
    with pytest.raises(InvalidInput):
        BlockRange(start, end)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "0-5",
        "000000000005-000000000000",
        "0000000000000-000000000005",
        "a" * 25,
        "000000000000-000000000005\n",
    ],
)
def test_only_the_printed_form_of_a_key_is_a_key(key):
    with pytest.raises(InvalidInput):
        BlockRange.from_key(key)


@given(ranges)
def test_keys_round_trip(block_range):
    assert BlockRange.from_key(block_range.key) == block_range


@given(st.lists(ranges, max_size=20))
def test_keys_sort_like_ranges(found):
    assert sorted(found) == [BlockRange.from_key(key) for key in sorted(r.key for r in found)]


@given(ranges, st.integers(1, 700))
def test_cells_cover_exactly_once(wanted, chunk):
    assert [block for cell in cells(wanted, chunk) for block in range(cell.start, cell.end)] == list(
        range(wanted.start, wanted.end)
    )


@given(ranges, st.lists(ranges, max_size=8))
def test_holes_are_the_set_difference(wanted, covered):
    taken = {block for piece in covered for block in range(piece.start, piece.end)}
    left = [block for hole in holes(wanted, covered) for block in range(hole.start, hole.end)]
    assert left == [block for block in range(wanted.start, wanted.end) if block not in taken]


@given(st.lists(ranges, max_size=8))
def test_merged_keeps_blocks_and_never_touches(found):
    joined = merged(found)
    assert {b for r in joined for b in range(r.start, r.end)} == {b for r in found for b in range(r.start, r.end)}
    assert all(left.end < right.start for left, right in zip(joined, joined[1:], strict=False))


@pytest.mark.parametrize(
    ("covers", "common"),
    [
        ([], []),
        ([[(0, 9)], []], []),
        ([[(0, 4)], [(4, 9)]], []),
        ([[(2, 4), (3, 9)]], [(2, 9)]),
        ([[(10, 20), (30, 99)], [(20, 90)]], [(30, 90)]),
        ([[(0, 50)], [(5, 10), (20, 60)], [(0, 30), (40, 45)]], [(5, 10), (20, 30), (40, 45)]),
    ],
)
def test_common_ranges_are_in_every_cover(covers, common):
    given = [[BlockRange(*each) for each in cover] for cover in covers]
    assert common_ranges(given) == [BlockRange(*each) for each in common]
