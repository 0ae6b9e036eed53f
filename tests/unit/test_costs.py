"""The arithmetic of a plan, compared with planner, engine and evidence piece by piece."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_blocks import ranges
from trace_dagster.blocks import BlockRange, cell_sizes, cells, holes
from trace_dagster.cli.render import print_plan
from trace_dagster.config.chain_sync import Stream
from trace_dagster.datasets.catalogue import catalogue
from trace_dagster.estimate.costs import Plan, Sample, StreamPlan, counted, places
from trace_dagster.evidence.needs import is_provable, most_calls
from trace_dagster.planning.dispatcher import RANGES_PER_RUN
from trace_dagster.verify.check import PIECE_BLOCKS

chunks = st.integers(1, 700)
levels = st.sampled_from(("off", "structural", "full", "require_full"))


def stream(name="blocks", **keys):
    return Stream.model_validate({"cryo_dataset_name": name, "rpc_pool": "dev", **keys})


def planned(key, todo, sample=None, error=None, rate=None, **keys):
    each = stream(**keys)
    return StreamPlan(key, each, tuple(todo), 0, counted(todo, each, 1), rate, sample, error)


def plan(*streams):
    return Plan("job", 1, "fixed_target", streams, ("nothing is committed yet",))


@given(ranges, chunks)
def test_sizes_are_those_of_the_cells(span, chunk):
    assert cell_sizes(span, chunk) == Counter(len(cell) for cell in cells(span, chunk))


def test_a_chains_whole_history_is_counted_without_being_cut():
    assert cell_sizes(BlockRange(7, 2**62), 1).total() == 2**62 - 7


@given(
    ranges,
    st.lists(ranges, max_size=4),
    chunks,
    levels,
    st.sampled_from(sorted(catalogue())),
    st.integers(1, 120),
    st.integers(1, 3),
)
def test_counts_are_those_of_every_cell_and_piece(span, committed, chunk, level, name, inner, quorum):
    each = stream(name, chunk_size=chunk, verify=level, inner_request_blocks=inner)
    todo = list(holes(span, committed))
    found = counted(todo, each, 10, quorum)
    cut = [cell for gap in todo for cell in cells(gap, chunk)]
    pieces = [len(piece) for cell in cut for piece in cell.split(PIECE_BLOCKS)]
    assert (found.blocks, found.ranges) == (sum(map(len, cut)), len(cut))
    spared = each.is_proven and quorum == 1
    cryos = [name for name in each.dataset.all_columns if not (spared and name in each.dataset.receipt_columns)]
    assert found.extraction_calls == quorum * sum(1 + each.dataset.most_calls(size, inner, cryos) for size in pieces)
    is_timed = name in {"blocks", "transactions"} or (each.is_proven and is_provable(name))
    assert found.header_calls == (0 if is_timed else quorum * sum(1 + size for size in pieces))
    assert found.evidence_calls == (sum(most_calls(name, size) for size in pieces) if each.is_proven else 0)


@pytest.mark.parametrize(
    ("name", "cryo", "evidence"),
    [
        ("blocks", 10, 11),
        ("transactions", 20, 21),
        ("logs", 4, 21),
        ("erc20_transfers", 4, 21),
        ("geth_calls", 20, 21),
        ("traces", 10, 21),
        ("address_appearances", 30, 0),
    ],
)
def test_calls_for_ten_blocks_in_requests_of_three(name, cryo, evidence):
    assert catalogue()[name].most_calls(10, 3) == cryo
    if evidence:
        assert most_calls(name, 10) == evidence


@pytest.mark.parametrize(
    ("level", "quorum", "columns", "calls"),
    [
        ("structural", 1, None, 21),
        ("structural", 1, ["transaction_hash"], 11),
        ("full", 1, None, 11),
        ("full", 2, None, 42),
        ("full", 1, ["transaction_hash"], 11),
        ("full", 2, ["transaction_hash"], 42),  # the proof needs columns that are not stored
    ],
)
def test_cryo_fetches_receipts_only_if_the_evidence_does_not_contain_them(level, quorum, columns, calls):
    each = stream("transactions", verify=level, columns=columns)
    assert counted([BlockRange(0, 10)], each, 10, quorum).extraction_calls == calls


@pytest.mark.parametrize("start", [4_369_990, 4_370_000])
def test_receipts_without_a_status_replace_cryos_too(start):
    """Before Byzantium (EIP-658) receipts have no status: the column is null."""
    each = stream("transactions", verify="full")
    assert counted([BlockRange(start, start + 10)], each, 1).extraction_calls == 11


@given(ranges, st.integers(1, 60))
def test_places_do_not_overlap_and_have_the_requested_number_of_blocks(span, blocks):
    found = places(span, blocks)
    assert sum(map(len, found)) == min(blocks, len(span))
    assert all(before.end <= after.start for before, after in zip(found, found[1:], strict=False))
    assert found[0].start == span.start
    assert found[-1].end == span.end or blocks < 3
    assert found[-1].end <= span.end


@given(ranges, st.lists(ranges, max_size=3), st.sampled_from((1, 2, 5)))
def test_streams_with_the_same_ranges_share_runs(span, committed, chunk):
    left = list(holes(span, committed))
    found = plan(
        planned("a", [span], chunk_size=chunk),
        planned("b", left, chunk_size=chunk),
        planned("c", left, chunk_size=7),
    )
    alone = [len([cell for gap in left for cell in cells(gap, 7)]), len(list(cells(span, chunk)))]
    assert found.runs == sum(-(-count // RANGES_PER_RUN) for count in alone)
    assert found.streams[2].runs == -(-alone[0] // RANGES_PER_RUN)


def test_a_sample_is_extrapolated_over_files_and_rows():
    sample = Sample(blocks=20, rows=40, seconds=2.0, bytes_per_file=1000, bytes_per_row=10.0)
    found = planned("a", [BlockRange(0, 36_000)], sample, rate=20, verify="off")
    assert (found.rows, found.bytes, found.hours_measured) == (72_000, 36 * 1000 + 720_000, 1.0)
    assert found.counts.rpc_calls == 36 * 1002
    assert found.hours_at_limit == pytest.approx(36 * 1002 / 20 / 3600)


def test_streams_share_their_pools_limit_and_without_one_the_total_is_unknown():
    limited = [planned(key, [BlockRange(0, 1000)], rate=10, verify="off") for key in "ab"]
    assert plan(*limited).hours_at_limit == pytest.approx(2 * 1002 / 10 / 3600)
    assert plan(*limited, planned("c", [BlockRange(0, 1000)])).hours_at_limit is None


def test_a_plan_is_a_table_with_the_errors_and_notes_below_it(capsys):
    broken = StreamPlan("b", stream(), (), 0, None, None, error="rpc pool 'dev' has no URL")
    print_plan(plan(planned("a", [BlockRange(0, 1000)], compact="off"), broken))
    *table, error, note = capsys.readouterr().out.splitlines()
    assert table[0] == "job · chain 1 (Ethereum) · fixed_target"
    assert [line.split()[0] for line in table[1:]] == ["stream", "a", "b", "all"]
    assert len({len(line.rstrip()) for line in table[1:]}) == 1, "figures are aligned to the right"
    assert (error, note) == ("b: rpc pool 'dev' has no URL", "note: nothing is committed yet")


SAMPLED = Sample(10, 100, 1.0, 500.0, 10.0)
"""100 bytes per block, and 500 per file."""


@pytest.mark.parametrize(
    ("todo", "compact", "windows", "files"),
    [
        ([(0, 1000)], {"after_files": 5}, 2, 2),
        ([(0, 1100)], {"after_files": 5}, 3, 3),
        ([(0, 100_000)], {"after_files": 1000, "target_bytes": 1 << 20}, 1, 11),
        ([(0, 100_000)], {"after_files": 500, "target_bytes": 1 << 20}, 2, 12),
        ([(0, 50), (500, 900)], {"after_files": 5}, 2, 2),
        ([(0, 1000)], "off", None, None),
        ([], {}, 0, 0),
    ],
)
def test_windows_of_compaction_and_the_files_that_they_become(todo, compact, windows, files):
    spans = [BlockRange(*span) for span in todo]
    found = planned("a", spans, SAMPLED, chunk_size=100, compact=compact)
    assert (found.windows, found.compacted_files) == (windows, files)
    assert found.to_json()["windows"] == windows


def test_a_plan_says_what_compaction_will_do(capsys):
    whole = [BlockRange(0, 1000)]
    print_plan(
        plan(
            planned("a", whole, SAMPLED, chunk_size=100, compact={"after_files": 5}),
            planned("b", whole, chunk_size=100, compact={"after_files": 5}),
            planned("c", whole, chunk_size=100, compact="off"),
        )
    )
    shown = capsys.readouterr().out
    assert "a: compaction: 10 files become about 2 in 2 windows of 500 blocks" in shown
    assert "b: compaction: 10 files are compacted in 2 windows of 500 blocks" in shown
    assert "c: " not in shown
