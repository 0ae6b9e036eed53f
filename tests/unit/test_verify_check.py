"""Levels, needed evidence, checked columns and merging of proofs."""

import dataclasses

import pyarrow as pa
import pytest
from msgspec.structs import replace

from tests.support.proven import devchain
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import catalogue, dataset
from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.check import EvidenceNeeds, check, checked_columns, evidence_needed, merge
from trace_dagster.verify.model import Evidence


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("blocks", EvidenceNeeds(True, False, False)),
        ("transactions", EvidenceNeeds(True, True, True)),
        ("logs", EvidenceNeeds(True, False, True)),
        ("erc20_transfers", EvidenceNeeds(True, False, True)),
        ("erc721_transfers", EvidenceNeeds(True, False, True)),
        ("geth_calls", EvidenceNeeds(True, True, True)),
        ("traces", EvidenceNeeds(True, True, True)),
        ("geth_balance_diffs", EvidenceNeeds(True, True, True)),
        ("contracts", EvidenceNeeds(True, False, False)),
        ("native_transfers", EvidenceNeeds(True, False, False)),
        ("nonce_diffs", EvidenceNeeds(False, False, False)),
    ],
)
def test_needs(name, wanted):
    assert evidence_needed(name) == wanted


@pytest.mark.parametrize("name", catalogue())
def test_columns_grow_with_the_level_and_hold_the_checked_ones(name):
    known = dataset(name)
    structural, full = checked_columns(known, "structural"), checked_columns(known, "full")
    assert set(known.checked_columns) <= set(structural) <= set(full) <= set(known.all_columns)
    assert list(full) == [column for column in known.all_columns if column in full]


def test_columns_by_name():
    assert checked_columns(dataset("transactions"), "structural") == (
        "block_number", "transaction_index", "transaction_hash", "chain_id",
    )  # fmt: skip
    assert set(checked_columns(dataset("transactions"), "full")) == {
        "block_number", "transaction_index", "transaction_hash", "chain_id", "gas_used", "transaction_type", "success",
        "block_hash",
    }  # fmt: skip
    assert "action_type" in checked_columns(dataset("traces"), "structural")
    assert "block_hash" in checked_columns(dataset("logs"), "full")


@pytest.mark.parametrize(
    "name", ["blocks", "transactions", "logs", "erc20_transfers", "erc721_transfers", "geth_calls"]
)
def test_the_columns_named_are_enough(name):
    found = devchain()
    for level, evidence in (("structural", None), ("full", found.evidence)):
        table = found.tables[name].select(checked_columns(dataset(name), level))
        said = check(dataset(name), table, found.piece, found.chain_id, evidence)
        assert said.level == ("crosschecked" if evidence and name == "geth_calls" else level)


def test_without_evidence_a_proof_is_structural():
    found = devchain()
    said = check(dataset("logs"), found.tables["logs"], found.piece, found.chain_id, None)
    assert (said.level, said.unproven, said.first_parent_hash, said.last_block_hash) == ("structural", (), None, None)
    said = check(dataset("blocks"), found.tables["blocks"], found.piece, found.chain_id, None)
    assert said.first_parent_hash == found.evidence.headers[0].parent_hash
    assert said.last_block_hash == found.evidence.headers[-1].hash
    bare = found.tables["blocks"].select(["block_number"])
    assert check(dataset("blocks"), bare, found.piece, found.chain_id, None).last_block_hash is None


@pytest.mark.parametrize("name", ["transactions", "logs", "geth_calls"])
def test_less_evidence_than_needed_proves_less(name):
    found = devchain()
    evidence = Evidence(found.evidence.headers)
    said = check(dataset(name), found.tables[name], found.piece, found.chain_id, evidence)
    assert said.level == ("structural" if name == "geth_calls" else "crosschecked")
    assert "block_hash" not in said.unproven
    assert said.last_block_hash == found.evidence.headers[-1].hash


def test_any_dataset_is_compared_where_it_can_be():
    found = devchain()
    rows = [
        {"block_number": row["block_number"], "transaction_index": row["transaction_index"],
         "transaction_hash": row["transaction_hash"], "address": bytes(20), "chain_id": found.chain_id}
        for row in found.tables["transactions"].to_pylist()
    ]  # fmt: skip
    known = dataset("nonce_diffs")
    table = pa.Table.from_pylist(rows, schema=known.engine_schema(tuple(known.all_columns)))
    said = check(known, table, found.piece, found.chain_id, found.evidence)
    assert (said.level, said.unproven) == ("crosschecked", ("address", "from_value", "to_value"))
    assert "transaction_hash belongs to transaction_index" in said.checks
    said = check(known, table, found.piece, found.chain_id, Evidence(found.evidence.headers))
    assert (said.level, said.unproven) == ("structural", ())


def with_evidence(**changes):
    found = devchain()
    return check(
        dataset("blocks"), found.tables["blocks"], found.piece, found.chain_id, replace(found.evidence, **changes)
    )


def test_evidence_must_hang_together():
    proven = devchain().evidence
    with pytest.raises(VerificationFailed, match=r"for other blocks block=20 range=\[20, 32\)"):
        with_evidence(headers=proven.headers[1:])
    with pytest.raises(VerificationFailed, match="the block before block=22"):
        with_evidence(
            headers=[*proven.headers[:2], replace(proven.headers[2], parent_hash=bytes(32)), *proven.headers[3:]]
        )
    with pytest.raises(VerificationFailed, match="the evidence lacks transactions block=20 expected=12 got=11"):
        with_evidence(transactions=proven.transactions[1:])
    with pytest.raises(VerificationFailed, match="the evidence lacks receipts block=20 expected=12 got=11"):
        with_evidence(receipts=proven.receipts[1:])
    at = next(n for n, inside in enumerate(proven.receipts) if inside)
    block = proven.headers[at].number

    def receipts(inside):
        return [*proven.receipts[:at], inside, *proven.receipts[at + 1 :]]

    with pytest.raises(VerificationFailed, match=f"not one receipt per transaction block={block}"):
        with_evidence(receipts=receipts(proven.receipts[at][1:]))
    first, *rest = proven.receipts[at]
    for other in (replace(first, transaction_hash=bytes(32)), replace(first, kind=first.kind + 1)):
        with pytest.raises(VerificationFailed, match=f"a receipt is of another transaction block={block} expected=0x"):
            with_evidence(receipts=receipts([other, *rest]))
    with_evidence(receipts=receipts([replace(first, transaction_hash=None), *rest]))
    with_evidence(receipts=receipts([replace(first, kind=9)]), transactions=None)


def piece(start, end, name="blocks", evidence=True):
    found = devchain()
    span = slice(start - found.piece.start, end - found.piece.start)
    rows = [row for row in found.tables[name].to_pylist() if start <= row["block_number"] < end]
    table = pa.Table.from_pylist(rows, schema=found.tables[name].schema)
    given = Evidence(found.evidence.headers[span], found.evidence.transactions[span], found.evidence.receipts[span])
    return check(dataset(name), table, BlockRange(start, end), found.chain_id, given if evidence else None)


def test_merged_proofs_are_the_proof_of_the_whole():
    for name in ("blocks", "transactions", "logs"):
        parts = [piece(20, 23, name), piece(23, 24, name), piece(24, 32, name)]
        assert merge(parts) == piece(20, 32, name)
        assert merge(parts[:1]) == parts[0]


def test_merging_keeps_what_holds_for_all():
    one, two = piece(20, 23, "logs"), piece(23, 32, "logs", evidence=False)
    said = merge([one, two])
    assert (said.level, said.blocks, said.checks) == ("structural", 12, two.checks)
    assert (said.first_parent_hash, said.last_block_hash) == (one.first_parent_hash, None)
    weak = dataclasses.replace(one, level="crosschecked", unproven=("b", "a"))
    said = merge(
        [
            dataclasses.replace(one, unproven=("c",)),
            dataclasses.replace(weak, first_block=23, first_parent_hash=one.last_block_hash),
        ]
    )
    assert (said.level, said.unproven) == ("crosschecked", ("a", "b", "c"))


def test_pieces_that_do_not_meet():
    one, two, three = piece(20, 23), piece(23, 24), piece(24, 32)
    with pytest.raises(VerificationFailed, match="the end of the previous piece block=23 expected=23 got=24"):
        merge([one, three])
    with pytest.raises(
        VerificationFailed, match=f"the block before block=23 expected=0x{one.last_block_hash.hex()} got=0x00"
    ):
        merge([one, dataclasses.replace(two, first_parent_hash=bytes(32)), three])
    with pytest.raises(VerificationFailed, match="the block before block=24 expected=0x"):
        merge([one, dataclasses.replace(two, last_block_hash=bytes(32)), three])
    merge([one, dataclasses.replace(two, first_parent_hash=None, last_block_hash=None), three])
