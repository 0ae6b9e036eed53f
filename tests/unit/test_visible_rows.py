"""Rows of files with masked blocks, as one lazy dataset: compared with a filter of each file on its own."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import VerificationFailed
from trace_dagster.store.scan import RowsInOrder, block_outside, inside
from trace_dagster.store.visible_rows import visible_rows

LOCAL = fs.LocalFileSystem()
blocks = st.integers(0, 40)
ranges = st.tuples(blocks, st.integers(1, 15)).map(lambda each: BlockRange(each[0], each[0] + each[1]))
files = st.lists(
    st.tuples(st.lists(blocks, max_size=40).map(sorted), st.lists(ranges, max_size=3), st.integers(1, 8)),
    min_size=1,
    max_size=4,
)


def write(folder, number, numbers, group_rows=4):
    path = folder / f"{number}.parquet"
    rows = pa.table(
        {"block_number": pa.array(numbers, pa.int64()), "row": [f"{number}-{i}" for i in range(len(numbers))]}
    )
    pq.write_table(
        rows.cast(pa.schema([("block_number", pa.int64()), ("row", pa.large_string())])),
        path,
        row_group_size=group_rows,
    )
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@settings(max_examples=200)
@given(files, st.none() | st.lists(ranges, min_size=1, max_size=2))
def test_masked_rows_are_left_out_file_by_file(folder, given_files, asked):
    paths = [
        (write(folder, number, numbers, rows), masked) for number, (numbers, masked, rows) in enumerate(given_files)
    ]
    found = visible_rows(paths, LOCAL)
    expected = [
        f"{number}-{i}"
        for number, (numbers, masked, _) in enumerate(given_files)
        for i, block in enumerate(numbers)
        if not any(block in each for each in masked) and (asked is None or any(block in each for each in asked))
    ]
    found = found if asked is None else found.filter(inside(asked))
    assert found.to_table()["row"].to_pylist() == expected
    assert found.count_rows() == len(expected)


@settings(max_examples=200)
@given(
    st.lists(st.lists(blocks, max_size=30), min_size=1, max_size=3),
    st.lists(blocks, min_size=1, max_size=6, unique=True),
)
def test_rows_are_taken_range_by_range(folder, given_numbers, edges):
    numbers = sorted(number for each in given_numbers for number in each)
    cuts = [0, *sorted(len(each) for each in given_numbers if len(each) < len(numbers)), len(numbers)]
    parts = [numbers[start:end] for start, end in zip(cuts, cuts[1:], strict=False) if start <= end]
    paths = [write(folder, f"part{at}", part) for at, part in enumerate(parts)]
    edges = sorted(edges)
    with RowsInOrder(paths, columns=["block_number"]) as rows:
        for start, end in zip(edges[::2], edges[1::2], strict=False):
            found = rows.take(BlockRange(start, end))["block_number"].to_pylist()
            assert found == [number for number in numbers if start <= number < end]


def test_a_range_is_taken_once(folder):
    with RowsInOrder([write(folder, "once", [1, 2, 3])]) as rows:
        assert rows.take(BlockRange(1, 3)).num_rows == 2
        with pytest.raises(ValueError, match="was passed already"):
            rows.take(BlockRange(2, 4))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [([[1, 3, 2]], "not in block order"), ([[1, 5], [4, 6]], "not in block order"), ([[1, None]], "no block number")],
)
def test_rows_out_of_order_are_refused(folder, numbers, sentence):
    paths = [write(folder, f"disorder{at}", each) for at, each in enumerate(numbers)]
    with RowsInOrder(paths) as rows, pytest.raises(VerificationFailed, match=sentence):
        rows.take(BlockRange(0, 10))


def test_row_groups_of_lower_blocks_are_not_decoded(folder, monkeypatch):
    path = write(folder, "skipped", range(40))
    decoded = []
    real = pq.ParquetFile.iter_batches

    def counted(self, *args, row_groups, **options):
        decoded.extend(row_groups)
        return real(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    with RowsInOrder([path]) as rows:
        assert rows.take(BlockRange(13, 18)).num_rows == 5
        assert rows.take(BlockRange(38, 40)).num_rows == 2
    assert decoded == [3, 4, 9]


def test_a_block_outside_is_found(folder):
    path = write(folder, "outside", [1, 2, 7])
    assert block_outside(path, [BlockRange(0, 5)]) == 7
    assert block_outside(path, [BlockRange(0, 5), BlockRange(7, 8)]) is None
    assert block_outside(path, []) == 1
