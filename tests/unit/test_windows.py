"""Windows: literal tables of the arithmetic, and that no change of the settings compacts a block twice."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange, merged
from trace_dagster.compaction.windows import named_window, new_windows, window_span, windows_of
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.streams import StreamSpec


def stream(from_block: int = 0, to_block: int | None = None, *, chunk: int = 10, files: int = 10) -> StreamSpec:
    return StreamSpec(
        job_id=UUID(int=1),
        job_name="job",
        dataset_uuid=UUID(int=2),
        dataset_key="logs",
        dataset=dataset("logs"),
        chain_id=1,
        rpc_pool="pool",
        chunk_size=chunk,
        columns=("block_number",),
        config_hash="0",
        verify="full",
        options={"compact": {"after_files": files}},
        from_block=from_block,
        to_block=to_block,
    )


def ranges(*pairs: tuple[int, int]) -> list[BlockRange]:
    return [BlockRange(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("of", "committed", "compacted", "windows"),
    [
        (stream(), [], [], []),
        (stream(), [(0, 90)], [], []),
        (stream(), [(0, 250)], [], [(0, 100), (100, 200)]),
        (stream(), [(0, 250)], [(0, 100)], [(100, 200)]),
        (stream(), [(0, 150), (160, 400)], [], [(0, 100), (200, 300), (300, 400)]),
        (stream(50), [(50, 310)], [], [(50, 100), (100, 200), (200, 300)]),
        (stream(50), [(60, 310)], [], [(100, 200), (200, 300)]),
        (stream(0, 250), [(0, 250)], [], [(0, 100), (100, 200), (200, 250)]),
        (stream(0, 250), [(0, 240)], [], [(0, 100), (100, 200)]),
        (stream(20, 30), [(20, 30)], [], [(20, 30)]),
        # larger windows after smaller ones: what is compacted keeps its windows, and the rest of a cell is one
        (stream(files=20), [(0, 600)], [(0, 100)], [(100, 200), (200, 400), (400, 600)]),
        # smaller windows after larger ones
        (stream(files=5), [(0, 300)], [(100, 200)], [(0, 50), (50, 100), (200, 250), (250, 300)]),
        # a bound that moved: the window that the old bound cut short is not written again
        (stream(0, 400), [(0, 400)], [(0, 100), (100, 200), (200, 250)], [(250, 300), (300, 400)]),
        (stream(0, 100), [(0, 100)], [(30, 100)], [(0, 30)]),
        # committed outside of the bounds of now
        (stream(100, 200), [(0, 300)], [], [(100, 200)]),
    ],
)
def test_new_windows(of, committed, compacted, windows):
    assert list(new_windows(of, ranges(*committed), ranges(*compacted))) == ranges(*windows)


@pytest.mark.parametrize(
    ("of", "known_end", "span"),
    [
        (stream(), 0, None),
        (stream(), 99, None),
        (stream(), 199, (0, 100)),
        (stream(150), 199, None),
        (stream(150), 200, (150, 200)),
        (stream(0, 250), 0, (0, 250)),
    ],
)
def test_span(of, known_end, span):
    assert window_span(of, known_end) == (BlockRange(*span) if span else None)


def test_a_stream_without_compaction_has_no_windows():
    of = stream()
    of.options["compact"] = "off"
    assert window_span(of, 1000) is None
    assert list(new_windows(of, ranges((0, 1000)), [])) == []


def test_a_stream_of_an_earlier_version_has_the_default_windows():
    of = stream()
    del of.options["compact"]
    assert window_span(of, 2500) == BlockRange(0, 2000)


def test_windows_that_were_compacted_stay_beside_at_most_so_many_others():
    found = windows_of(stream(0, 10**12), ranges((500, 600)), 0, limit=3)
    assert found == ranges((0, 100), (100, 200), (200, 300), (500, 600))


LAYOUT_SETTINGS = st.tuples(st.integers(1, 7), st.integers(2, 6), st.integers(0, 40), st.integers(41, 200))


@given(st.lists(st.tuples(LAYOUT_SETTINGS, st.integers(0, 200)), min_size=1, max_size=6))
def test_no_change_of_settings_and_bounds_compacts_a_block_twice(changes):
    """Compact, at each step with other settings, every new window of what is committed then."""
    written: list[BlockRange] = []
    for (chunk, files, start, end), known in changes:
        of = stream(start, end, chunk=chunk, files=files)
        committed = [BlockRange(0, known)] if known else []
        for window in new_windows(of, committed, written):
            assert not any(each.start < window.end and window.start < each.end for each in written)
            assert start <= window.start < window.end <= min(end, known)
            assert len(window) <= chunk * files
            written.append(window)
    (chunk, files, start, end), _ = changes[-1]
    rest = list(new_windows(stream(start, end, chunk=chunk, files=files), [BlockRange(0, 200)], written))
    assert [
        block for part in merged([*written, *rest]) for block in range(part.start, part.end) if start <= block < end
    ] == list(range(start, end)), "every block of a bounded stream gets into one window"


def test_a_window_is_named_by_its_exact_blocks():
    windows = ranges((0, 100), (100, 200), (200, 250))
    assert named_window(windows, BlockRange(100, 200), "logs") == BlockRange(100, 200)
    with pytest.raises(
        InvalidInput, match="50-150 are no window of logs; its windows with such blocks: 0-100, 100-200"
    ):
        named_window(windows, BlockRange(50, 150), "logs")
    with pytest.raises(InvalidInput, match="its windows with such blocks: none"):
        named_window(windows, BlockRange(300, 400), "logs")
