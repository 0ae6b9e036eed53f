"""Which versions a compaction rewrites, as literal tables. `o` is a file of its own, a letter a file of a layout."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.plan import files_of, groups, is_due, output_files
from trace_dagster.registry.layouts import SourceFile, SourceVersion, WindowState

TARGET = 1000
ONE = (("block_number", "int64"),)
OTHER = (("block_number", "int64"), ("extra", "int64"))


def version(number, size=100, layout=None, masked=0, columns=ONE):
    own = SourceFile(f"own-{number}", size, None, 0)
    shared = SourceFile(f"layout-{layout}", size, UUID(int=1), masked)
    return SourceVersion(
        UUID(int=number),
        BlockRange(number * 10, number * 10 + 10),
        0,
        1,
        "0" * 64,
        columns,
        (shared if layout else own,),
    )


def numbers(found):
    return [[each.block_range.start // 10 for each in group] for group in found]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([], []),
        ([version(0)], []),  # one file would become one file
        ([version(0), version(1)], [[0, 1]]),
        ([version(0), version(1, 1000), version(2), version(3)], [[2, 3]]),  # 1 is large enough
        ([version(0), version(1), version(2, columns=OTHER), version(3, columns=OTHER)], [[0, 1], [2, 3]]),
        ([version(0), version(1, columns=OTHER)], []),
        ([version(0, 600, "a"), version(1), version(2)], [[1, 2]]),  # an unmasked file of half the target stays
        ([version(0, 200, "a"), version(1, 200, "a")], []),  # few files already
        ([version(0, 200, "a"), version(1, 200, "b")], []),  # nothing of it is new
        ([version(0, 300, "a"), version(1, 99)], []),  # less than a quarter is new
        ([version(0, 300, "a"), version(1, 100)], [[0, 1]]),
        ([version(0, 300, "a", masked=3), version(1, 20)], [[0, 1]]),  # a mask counts by its share of the blocks
        ([version(0, 300, "a", masked=2)], []),
        ([version(0, 300, "a", masked=10)], [[0]]),  # half of the file is masked
        ([version(0, 800, "a", masked=10), version(1, 100)], [[0, 1]]),  # a masked file is not settled
    ],
)
def test_the_groups(versions, expected):
    assert numbers(groups(versions, TARGET)) == expected


@given(
    st.lists(
        st.tuples(st.integers(1, 1500), st.sampled_from([None, "a", "b"]), st.sampled_from([ONE, OTHER])), max_size=12
    )
)
def test_groups_are_neighbours_of_one_schema_and_have_fewer_files(made):
    versions = [version(number, size, layout, columns=columns) for number, (size, layout, columns) in enumerate(made)]
    found = groups(versions, TARGET)
    starts = [start for group in numbers(found) for start in group]
    assert starts == sorted(set(starts))
    for group in found:
        assert len({each.columns for each in group}) == 1
        spans = [each.block_range for each in group]
        assert all(one.end == other.start for one, other in zip(spans, spans[1:], strict=False))
        files = files_of(group)
        assert len(files) > output_files(sum(file.bytes for file in files), TARGET)


def state(**changes):
    values = {
        "block_range": BlockRange(0, 100),
        "whole": True,
        "versions": 10,
        "uncompacted": 10,
        "files": 10,
        "uncompacted_files": 10,
        "bytes": 800,
        "uncompacted_bytes": 800,
        "masked_blocks": 0,
        "masked_bytes": 0,
        "held": False,
        "due": True,
        "failures": 0,
        "error": None,
    }
    return WindowState(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"whole": False}, False),
        ({"held": True}, False),
        ({"due": False}, False),
        ({"files": 1, "uncompacted": 0, "uncompacted_files": 0, "uncompacted_bytes": 0}, False),
        ({"uncompacted_bytes": 199}, False),
        ({"uncompacted_bytes": 100, "masked_blocks": 5, "masked_bytes": 100}, True),
        ({"bytes": 10_000, "uncompacted_bytes": 10_000}, False),  # ten files of the target's size
    ],
)
def test_when_a_window_is_due(changes, expected):
    assert is_due(state(**changes), TARGET) is expected
