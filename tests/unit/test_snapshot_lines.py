"""What `trace-lite query` prints about the snapshot of an answer."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.cli.answers import print_answer
from trace_dagster.cli.snapshot_lines import snapshot_lines
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.render import to_json
from trace_dagster.registry.snapshot_header import Cut, LabelledHead, RelationInSnapshot, SnapshotHeader

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HEADS = {
    143: (
        LabelledHead(143, "latest", 12_345, b"\x01" * 32, NOON, 0.31),
        LabelledHead(143, "safe", 12_344, None, None, 0.31),
        LabelledHead(143, "finalized", 12_300, None, None, 90.0),
    )
}


def relation(key="logs", first=0, last=12_345, gaps=(), *, derived=None):
    missing = sum(map(len, gaps))
    return RelationInSnapshot(UUID(int=1), 143, key, 0, first, last, last, None, tuple(gaps), missing, derived)


def lines(*relations, heads=HEADS, cuts=None):
    return snapshot_lines(SnapshotHeader(heads, cuts or {}, relations, "0-0-0").to_json())


def test_committed_rows_without_a_gap_print_nothing():
    assert lines(relation(), heads={}) == []


def test_heads_are_in_the_words_of_the_chain_and_old_ones_have_an_age():
    told = "chain 143: proposed 12,345, voted 12,344, finalized 12,300 (1 minute ago)"
    assert lines(relation()) == [told]
    assert lines(relation(), cuts={143: Cut(12_300)}) == [f"{told}; rows up to block 12,300"]


def test_the_age_of_heads_that_nobody_observes_any_more_is_there_once():
    heads = {1: tuple(LabelledHead(1, tag, 7, None, None, 200.0) for tag in ("latest", "finalized"))}
    assert lines(relation(), heads=heads) == ["chain 1: latest 7, finalized 7; seen 3 minutes ago"]


def test_a_cut_of_a_chain_that_nobody_follows():
    assert lines(relation(), heads={}, cuts={143: Cut(9, NOON)}) == [
        "chain 143: rows up to block 9 and 2024-05-01T12:00:00+00:00"
    ]


def test_gaps_are_in_one_line_the_newest_first():
    gaps = [BlockRange(at, at + 5) for at in (0, 100, 200)] + [BlockRange(300, 301)]
    found = lines(relation(gaps=gaps), relation("blocks", gaps=[BlockRange(0, 1000)]), heads={})
    assert found == [
        "not there yet: chain_143.logs lacks 16 blocks: 300, 200 to 204, 100 to 104, ...;"
        " chain_143.blocks lacks 1,000 blocks: 0 to 999"
    ]


def test_a_relation_that_ends_below_the_head_says_where():
    """Traces have no hot rows, and a derived dataset is made of committed ones."""
    found = lines(relation("geth_calls", last=12_000), relation("supply", last=7, derived=frozenset({"a"})))
    assert found[1:] == ["not there yet: chain_143.geth_calls ends at block 12,000"]
    assert lines(relation("logs", None, None))[1:] == ["not there yet: chain_143.logs has no block"]
    assert len(lines(relation("geth_calls", last=12_000), cuts={143: Cut(12_000)})) == 1


def test_the_snapshot_is_on_stderr_beside_a_table_and_a_member_of_json(capsys):
    header = SnapshotHeader(HEADS, {143: Cut(12_300)}, (relation(),), "7-1-c0ffee")
    result = QueryResult((("n", "BIGINT"),), [(7,)], truncated=False, snapshot=header)
    print_answer(to_json(result), as_json=False)
    shown = capsys.readouterr()
    assert "chain 143" not in shown.out
    assert shown.err.startswith("chain 143: proposed 12,345, ")
    assert shown.err.endswith("; rows up to block 12,300\n")
    print_answer(to_json(result), as_json=True)
    shown = capsys.readouterr()
    assert shown.err == ""
    found = json.loads(shown.out)
    assert found["snapshot"] == header.to_json()
    assert found["snapshot"]["cursor"] == "7-1-c0ffee"
    assert found["snapshot"]["heads"][0]["hash"] == "0x" + "01" * 32


def test_a_result_without_a_snapshot_has_no_such_member(capsys):
    print_answer(to_json(QueryResult((("n", "BIGINT"),), [(7,)], truncated=False)), as_json=True)
    assert set(json.loads(capsys.readouterr().out)) == {"columns", "rows", "truncated"}


def test_a_note_of_a_relation_is_a_line():
    noted = replace(relation(), note="its rows are stored in form 1")
    assert lines(noted, heads={}) == ["note: chain_143.logs: its rows are stored in form 1"]
