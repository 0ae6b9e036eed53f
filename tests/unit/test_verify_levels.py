"""Levels follow the chain's forms: an open part lowers the rows that it concerns, and only where that is allowed."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.proven import devchain
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chain import Chain, Form, Forms, LearnedForms, Open
from trace_dagster.errors import EndpointLacks, Unavailable, UnknownForm, VerificationFailed
from trace_dagster.evidence.cache import EvidenceCache
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.extraction.request import Piece
from trace_dagster.ingest.commit import _proves_more
from trace_dagster.ingest.range_proof import RangeProof
from trace_dagster.verify.check import Lowered, check, evidence_needed

REASON = "nobody knows type 0x55"
UNLISTED = 4_242


def unknown(part, block, kind=None):
    return UnknownForm(REASON, part=part, kind=kind, block=block)


def opened(parts_by_place):
    """Return the devchain's evidence with parts of some blocks left open, and its piece."""
    found = devchain()
    marks = {found.piece.start + place: dict.fromkeys(parts, REASON) for place, parts in parts_by_place.items()}
    return found, msgspec.structs.replace(found.evidence, open=marks)


def proof(name, parts_by_place, chain_id=None, table=None):
    found, evidence = opened(parts_by_place)
    wanted = evidence_needed(name)
    evidence = msgspec.structs.replace(
        evidence,
        transactions=evidence.transactions if wanted.transactions else None,
        receipts=evidence.receipts if wanted.receipts else None,
    )
    rows = found.tables[name] if table is None else table
    return check(dataset(name), rows, found.piece, chain_id or found.chain_id, evidence)


@pytest.mark.parametrize("name", ["blocks", "transactions", "logs"])
def test_open_transactions_lower_only_their_dataset_and_block(name):
    said = proof(name, {3: ["transactions"]} if name == "transactions" else {})
    if name != "transactions":
        assert (said.level, said.lowered, said.levels) == ("full", (), {"full": 12})
        return
    start = devchain().piece.start
    assert said.lowered == (Lowered(start + 3, 1, "structural", REASON),)
    assert (said.level, said.levels) == ("structural", {"full": 11, "structural": 1})
    assert said.first_block == start
    assert said.blocks == 12


@pytest.mark.parametrize(
    ("name", "part", "level"),
    [
        ("blocks", "header", "structural"),
        ("logs", "header", "crosschecked"),
        ("logs", "receipts", "structural"),
        ("transactions", "header", "crosschecked"),
        ("transactions", "transactions", "structural"),
        ("transactions", "receipts", "crosschecked"),
        ("geth_calls", "transactions", "structural"),
        ("geth_calls", "receipts", "structural"),
        ("geth_calls", "header", "structural"),
        ("erc20_transfers", "header", "crosschecked"),
    ],
)
def test_the_level_follows_what_is_open(name, part, level):
    said = proof(name, {0: [part], 1: [part], 5: [part]})
    start = devchain().piece.start
    assert said.lowered == (Lowered(start, 2, level, REASON), Lowered(start + 5, 1, level, REASON))
    assert said.levels[level] == 3
    assert sum(said.levels.values()) == 12


def test_lowered_rows_name_what_their_forms_leave_open():
    """Celo before Gingerbread: the transactions root proves rows, but its headers have no base fee to derive from."""
    table = devchain().tables["transactions"].drop_columns(["chain_id"])
    table = table.append_column("chain_id", [[42220] * table.num_rows]).cast(devchain().tables["transactions"].schema)
    said = proof("transactions", {place: ["receipts"] for place in range(12)}, 42220, table)
    assert said.level == "crosschecked"
    assert "gas_price of type 0x2 transactions" in said.unproven


def test_what_can_be_compared_is_compared_in_lowered_blocks():
    """A block whose transactions are open still has a proven header: rows of another block are a lie."""
    rows = devchain().tables["transactions"]
    column = rows.column_names.index("block_hash")
    wrong = rows.set_column(column, "block_hash", [[bytes(32)] * rows.num_rows])
    wrong = wrong.cast(rows.schema)
    with pytest.raises(VerificationFailed, match="block_hash"):
        proof("transactions", {place: ["transactions"] for place in range(12)}, table=wrong)


def test_rows_beside_lowered_blocks_are_proven():
    rows = devchain().tables["transactions"]
    nonces = rows["nonce"].to_pylist()
    nonces[-1] += 1
    wrong = rows.set_column(rows.column_names.index("nonce"), "nonce", [nonces]).cast(rows.schema)
    with pytest.raises(VerificationFailed, match="nonce"):
        proof("transactions", {0: ["transactions"]}, table=wrong)


def test_the_manifest_says_which_blocks_are_lowered_and_why():
    said = proof("transactions", {3: ["transactions"]})
    found = RangeProof("full", 1)
    found.add(Piece(devchain().piece, devchain().tables["transactions"], said, {}, ("pool#1",), 0.0))
    summary = found.summary()
    assert summary["level"] == "structural"
    assert summary["levels"] == {"full": 11, "structural": 1}
    assert summary["lowered"] == [
        {"first_block": devchain().piece.start + 3, "blocks": 1, "level": "structural", "reason": REASON}
    ]
    assert "rows of 1 blocks, see lowered" in summary["unproven"]


def parts_with(*errors):
    found = devchain().evidence
    parts = EvidenceParts(found.headers, found.transactions, found.receipts)
    for error in errors:
        parts.leave_open(error)
    return parts


def test_a_stream_only_hears_of_the_parts_that_it_needs():
    parts = parts_with(unknown("transactions", 23, 0x55))
    assert EvidenceCollector("blocks", 1, None).open_parts(parts) == {}
    assert EvidenceCollector("logs", 1, None).open_parts(parts) == {}
    with pytest.raises(UnknownForm, match="0x55"):
        EvidenceCollector("transactions", 1, None).open_parts(parts)


@pytest.mark.parametrize("chain_id", [1, 10, 137, 20143])
def test_on_a_listed_chain_an_unknown_form_is_never_learned(chain_id):
    collector = EvidenceCollector("transactions", chain_id, None)
    error = unknown("transactions", 5_000_000, 0x55)
    assert not collector.learn(error)
    with pytest.raises(UnknownForm):
        collector.open_parts(parts_with(error))


def test_on_an_unlisted_chain_a_form_is_open_once_it_was_learned():
    collector = EvidenceCollector("transactions", UNLISTED, None)
    error = unknown("transactions", 23, 0x55)
    with pytest.raises(UnknownForm):
        collector.open_parts(parts_with(error))
    assert collector.learn(error)
    assert set(collector.open_parts(parts_with(error))) == {23}
    with pytest.raises(UnknownForm):
        collector.open_parts(parts_with(error, unknown("transactions", 24, 0x56)))


def test_the_table_opens_a_form_from_the_start_or_after_all_endpoints():
    row = Open(Form("transactions", 0x76), "no public specification", first=10, end=20)
    later = Open(Form("receipts"), "another node may know", after_all=True)
    forms = Forms(Chain(7, "seven", open=(row, later)), LearnedForms())
    form, other = Form("transactions", 0x76), Form("receipts", 3)
    assert [forms.open_reason(form, block) for block in (9, 10, 19, 20)] == [None, row.reason, row.reason, None]
    assert not forms.may_learn(form, 15)
    assert not forms.may_learn(Form("header"), 15)
    assert forms.open_reason(other, 1) is None
    assert forms.may_learn(other, 1)
    forms.learned.add(7, other, 5)
    assert [forms.open_reason(other, block) for block in (4, 5, 9)] == [None, later.reason, later.reason]
    forms.learned.add(7, other, 1)
    assert forms.open_reason(other, 4) == later.reason
    assert Forms(Chain(8, "eight", open=(later,)), forms.learned).open_reason(other, 1) is None


@pytest.mark.parametrize(
    ("chain_id", "form", "inside", "outside"),
    [
        (1, Form("receipts"), 4_369_999, 4_370_000),
        (137, Form("transactions", 0x7F), 80_084_800, 80_084_799),
        (42220, Form("receipts", 0x7B), 31_056_500, None),
    ],
)
def test_what_was_learned_holds_only_where_the_chains_row_says_so(chain_id, form, inside, outside):
    collector = EvidenceCollector("transactions", chain_id, None)
    assert collector.learn(UnknownForm(REASON, part=form.part, kind=form.kind, block=inside))
    assert collector.forms.open_reason(form, inside) is not None
    if outside is not None:
        assert collector.forms.open_reason(form, outside) is None


@pytest.mark.parametrize(("chain_id", "block", "kind"), [(UNLISTED, 23, 0x55), (137, 80_084_800, 0x7F)])
def test_an_endpoint_without_a_say_is_asked_again_for_other_ranges_and_datasets(chain_id, block, kind):
    """A node without traces cannot say anything about geth_calls, but it may prove the transactions."""
    cache = EvidenceCache()
    error, lacks = unknown("transactions", block, kind), EndpointLacks("the node does not trace")
    calls, transactions = (EvidenceCollector(name, chain_id, None, cache) for name in ("geth_calls", "transactions"))
    assert calls.learn_from([error, lacks])
    assert set(calls.open_parts(parts_with(error))) == {block}
    with pytest.raises(UnknownForm):
        transactions.open_parts(parts_with(error))
    assert transactions.learn_from([error, error])
    assert set(EvidenceCollector("logs", chain_id, None, cache).open_parts(parts_with(error))) == set()
    assert set(EvidenceCollector("traces", chain_id, None, cache).open_parts(parts_with(error))) == {block}


@pytest.mark.parametrize("others", [[Unavailable("timed out")], [VerificationFailed("a lie")], []])
def test_an_endpoint_that_failed_otherwise_leaves_no_form_open(others):
    collector = EvidenceCollector("transactions", UNLISTED, None)
    failures = [unknown("transactions", 23, 0x55), *others] if others else [EndpointLacks("no such blocks")]
    assert not collector.learn_from(failures)


def test_slices_and_joins_keep_what_is_open():
    parts = parts_with(unknown("receipts", 21), unknown("header", 30))
    first, second = parts.slice(0, 5), parts.slice(5, 12)
    assert (set(first.unknown), set(second.unknown)) == ({21}, {30})
    assert first.is_open("receipts", 21)
    assert not first.is_open("header", 21)
    assert len(second.headers) == len(BlockRange(25, 32))


@pytest.mark.parametrize(
    ("fresh", "known", "expected"),
    [
        ({"level": "full"}, {"level": "structural"}, True),
        ({"level": "structural", "levels": {"structural": 1, "full": 11}}, {"level": "structural", "blocks": 12}, True),
        (
            {"level": "structural", "levels": {"structural": 3, "full": 9}},
            {"levels": {"structural": 3, "full": 9}},
            False,
        ),
        (
            {"level": "structural", "levels": {"structural": 4, "full": 8}},
            {"levels": {"structural": 3, "full": 9}},
            False,
        ),
        ({"level": "structural", "blocks": 12}, {"level": "off"}, True),
        ({"level": "full", "blocks": 12}, {"level": "full"}, False),
        ({"level": "full", "boundary": {"a": 1}}, {"level": "full", "boundary": {"a": 2}}, True),
    ],
)
def test_equal_rows_are_a_new_version_if_fewer_blocks_are_lowered(fresh, known, expected):
    assert _proves_more(fresh, known) is expected
