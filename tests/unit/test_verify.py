"""Structural verification: a correct answer passes, each broken rule is named."""

import pyarrow as pa
import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify import StructuralCheck

SPAN = BlockRange(10, 14)


def blocks(numbers, *, chain_id=1, broken_link=None):
    rows = [
        {
            "block_number": n,
            "block_hash": bytes([n]) * 32,
            "parent_hash": b"\xee" * 32 if n == broken_link else bytes([n - 1]) * 32,
            "chain_id": chain_id,
        }
        for n in numbers
    ]
    return table("blocks", rows, ["block_hash", "parent_hash", "block_number", "chain_id"])


def table(name, rows, columns):
    schema = dataset(name).schema(columns)
    return pa.Table.from_pylist(rows, schema=schema)


def logs(pairs):
    columns = ["block_number", "log_index", "chain_id"]
    return table("logs", [{"block_number": b, "log_index": i, "chain_id": 1} for b, i in pairs], columns)


def run(name, *tables, asked="full"):
    check = StructuralCheck(dataset(name), SPAN, 1, asked=asked)
    for piece in tables:
        check.feed(piece)
    return check.finish()


def test_whole_blocks_pass_in_any_cut_and_say_which_level_was_reached():
    evidence = run("blocks", blocks([10, 11]), blocks([12, 13]))
    assert evidence["asked"] == "full"
    assert evidence["level"] == "structural"
    assert evidence["boundary"] == {
        "first_parent_hash": "0x" + (bytes([9]) * 32).hex(),
        "last_block_hash": "0x" + (bytes([13]) * 32).hex(),
    }


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([blocks([10, 11, 13])], "missing or doubled"),
        ([blocks([10, 11, 11, 12, 13])], "missing or doubled"),
        ([blocks([10, 11, 12])], "one row per block"),
        ([], "one row per block"),
        ([blocks([9, 10, 11, 12, 13])], "outside the range"),
        ([blocks([10, 11, 12, 13, 14])], "outside the range"),
        ([blocks([10, 11, 12, 13], chain_id=2)], "another chain"),
        ([blocks([10, 11, 12, 13], broken_link=12)], "parent_hash"),
        ([blocks([10, 11]), blocks([12, 13], broken_link=12)], "parent_hash"),
    ],
)
def test_broken_blocks_are_named(tables, said):
    with pytest.raises(VerificationFailed, match=said):
        run("blocks", *tables)


def test_logs_pass_across_tables_and_empty_ranges_are_normal():
    assert run("logs", logs([(10, 0), (10, 1)]), logs([(12, 0)]))["level"] == "structural"
    assert run("logs")["level"] == "structural"


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([logs([(10, 1)])], "log_index has a gap"),
        ([logs([(10, 0), (10, 2)])], "log_index has a gap"),
        ([logs([(10, 0), (10, 0)])], "not in order"),
        ([logs([(11, 0), (10, 0)])], "not in order"),
        ([logs([(10, 0)]), logs([(10, 0)])], "not in order"),
        ([logs([(14, 0)])], "outside the range"),
    ],
)
def test_broken_logs_are_named(tables, said):
    with pytest.raises(VerificationFailed, match=said):
        run("logs", *tables)


def calls(rows):
    columns = ["block_number", "transaction_index", "trace_address", "chain_id"]
    return table(
        "geth_calls",
        [{"block_number": b, "transaction_index": t, "trace_address": a, "chain_id": 1} for b, t, a in rows],
        columns,
    )


def test_call_frames_are_unique_within_and_between_tables():
    assert run("geth_calls", calls([(10, 0, ""), (10, 0, "0")]), calls([(11, 0, "")]))["level"] == "structural"
    with pytest.raises(VerificationFailed, match="stands twice"):
        run("geth_calls", calls([(10, 0, ""), (10, 0, "")]))
    with pytest.raises(VerificationFailed, match="block order"):
        run("geth_calls", calls([(10, 0, "")]), calls([(10, 0, "")]))


def test_off_checks_nothing_and_says_so():
    assert run("blocks", blocks([99]), asked="off") == {"asked": "off", "level": "off", "checks": []}
